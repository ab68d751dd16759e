"""The keys of the prompt that differ from those of every line editor."""

from collections.abc import Callable

from prompt_toolkit.filters import is_searching
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from .quotes import is_quote_open


def key_bindings(*, clears: Callable[[], bool], is_late: Callable[[], bool]) -> KeyBindings:
    """Return the keys of the prompt; Ctrl-C empties a line that holds text if `clears()` is true.

    Its text stays in the history. A Ctrl-C that `is_late` for the answer before it does nothing to a text.
    """
    keys = KeyBindings()

    @keys.add("c-c", filter=~is_searching)  # in a search it ends the search
    @keys.add("<sigint>")
    def clear_or_leave(event: KeyPressEvent) -> None:
        if event.current_buffer.text and clears():
            if not is_late():
                event.current_buffer.append_to_history()
                event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt)

    @keys.add("enter", filter=~is_searching)  # in a search it takes what was found
    def send_or_go_on(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.current_line_before_cursor.endswith("\\") and buffer.document.is_cursor_at_the_end:
            buffer.delete_before_cursor()
            buffer.newline(copy_margin=False)
        elif is_quote_open(buffer.text):
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    return keys
