"""Commands and options that other programs have, and what does the same here."""

LIST = "'mistral-mlx models' lists the models"
CHAT = "'mistral-mlx chat -m MODEL' talks to a model, 'mistral-mlx complete -m MODEL' answers once"
REMOVE = "'mistral-mlx models remove NAME' forgets a name; its folder stays"
NO_SERVER = "an HTTP server is not included"
NOT_RUNNING = "a model is in memory only while a command runs"
OF_OTHERS = {  # of ollama, lms, hf and mlx_lm
    "run": CHAT,
    "generate": CHAT,
    "list": LIST,
    "ls": LIST,
    "show": "'mistral-mlx info MODEL' describes a model",
    "rm": REMOVE,
    "serve": NO_SERVER,
    "server": NO_SERVER,
    "get": "'mistral-mlx pull ORG/REPO' fetches a model",
    "download": "'mistral-mlx pull ORG/REPO' fetches a model",
    "cp": "'mistral-mlx models add NEW DIR' gives a model a second name",
    "ps": NOT_RUNNING,
    "stop": NOT_RUNNING,
    "version": "'mistral-mlx --version' shows the version",
}
OF_MODELS = {  # after `models`
    "list": LIST,
    "ls": LIST,
    "rm": REMOVE,
    "delete": REMOVE,
    "mv": "'mistral-mlx models rename OLD NEW' changes a name",
    "show": "'mistral-mlx info MODEL' describes a model",
}
SETTINGS = "'mistral-mlx config' shows what is set, 'mistral-mlx config --all' also the defaults"
OF_CONFIG = {"list": SETTINGS, "ls": SETTINGS, "show": SETTINGS, "get": SETTINGS}  # after `config`
FORGET = "'mistral-mlx sessions rm NAME' removes one"
OF_SESSIONS = {  # after `sessions`
    "delete": FORGET,
    "remove": FORGET,
    "ls": "'mistral-mlx sessions' lists them",
    "mv": "'mistral-mlx sessions rename OLD NEW' changes a name",
    "resume": "'mistral-mlx chat --resume NAME' continues one",
}
OF_GROUPS = {"models": OF_MODELS, "config": OF_CONFIG, "sessions": OF_SESSIONS}

# Names of options that are taken for ours, with _ for - too: of llama.cpp, mlx-lm, Transformers, llm and ollama.
SPELLINGS = {
    "grammar-file": "grammar",
    "ignore-chat-template": "raw",
    "json-schema": "schema",
    "max-new-tokens": "max-tokens",
    "model-draft": "draft-model",
    "n-depth": "depth",
    "n-predict": "max-tokens",
    "num-draft-tokens": "draft",
    "num-predict": "max-tokens",
    "prefill-response": "prefill",
    "q-bits": "bits",
    "q-group-size": "group-size",
    "q-mode": "mode",
    "quant-predicate": "recipe",
    "repeat-penalty": "repetition-penalty",
    "repetitions": "repeats",
    "system-prompt": "system",
    "temp": "temperature",
    "typical": "typical-p",
}
GPU = "--device gpu computes on a GPU"
QUOTED = 'the prompt is the argument: mistral-mlx complete "the prompt"'
WRAPPED = "chat --plain leaves the lines as the model writes them"
SPEEDS = "--stats prints counts and speeds"
WINDOWED = "the context has no size to set; --window N bounds the memory (eval has --context)"
CHATS = "'mistral-mlx chat' is a conversation, and 'mistral-mlx complete' one answer"
CONVERTED = "source and target are arguments: mistral-mlx convert SOURCE TARGET"
OPTIONS_OF_OTHERS = {  # that none of ours can stand for
    "--adapter-path": "an adapter is merged first: mistral-mlx convert SOURCE TARGET --adapter DIR",
    "--conversation": CHATS,
    "--ctx-size": WINDOWED,
    "--format": "--schema binds the answer to a form, --json writes a record of it",
    "--gpu-layers": GPU,
    "--max-kv-size": "--window N --sinks 4 bounds the memory",
    "--hf-path": CONVERTED,
    "--mlx-path": CONVERTED,
    "--n-gpu-layers": GPU,
    "--no-conversation": CHATS,
    "--nowordwrap": WRAPPED,
    "--num-ctx": WINDOWED,
    "--prompt": QUOTED,
    "--verbose": SPEEDS,
    "-cnv": CHATS,
    "-i": CHATS,
    "-ngl": GPU,
    "-no-cnv": f"{CHATS}; with --raw it continues the text",
    "-o": "each option has its own name, as in --temperature 0; --output FILE takes the answer",
    "-p": QUOTED,
    "-s": "it is --system for llm and --seed for llama-cli; write out the one you mean",
    "-sys": "--system TEXT is the system prompt",
    "-v": SPEEDS,
}
WITHOUT_NUMBER = {  # options that take a number elsewhere and none here, by command
    ("chat", "-c"): f"-c is --continue here, without a number; {WINDOWED}",
    ("complete", "-c"): f"-c is --continue here, without a number; {WINDOWED}",
    ("convert", "-q"): "-q is --quiet here, without a number; --bits N sets the bits per weight",
}


def our_spelling(name: str) -> str:
    """Return the name of an option, without its dashes, as this program spells it."""
    name = name.replace("_", "-")
    return SPELLINGS.get(name, name)
