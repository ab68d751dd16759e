"""The spans of an answer: emphasis, code, escapes, links, and where their rows break."""

import pytest
from helpers.markdown import cut, marked, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('**Note:**text and "**quoted**" then', '**Note:**text and "[quoted]" then'),
        ("Next **a**b and a**b**.", "Next [a]b and a[b]."),
        (r"\*escaped\*, \*\*not bold\*\*", "*escaped*, **not bold**"),
        (r"\`not code\`, `code \`", r"`not code`, {code \}"),
        (r"snake\_case, 5 \* 3", "snake_case, 5 * 3"),
        ("**bold text that is\nbroken over lines**", "[bold text that is]\n[broken over lines]"),
        ("2*3*4, 2**3**4 and a*b*c", "2*3*4, 2**3**4 and a/b/c"),
        ("**これは太字です。**そして", "[これは太字です。]そして"),
        ("***both*** and *it **and bold***", "[/both]/ and /it [and bold]/"),
        ("*args and **kwargs", "*args and **kwargs"),
        ("~~old~~ ~5", "~old~ ~5"),
        ("&amp; &lt;b&gt; &copy; &nope; &#65;", "& <b> © &nope; A"),
        ("&#27;[2J &#x9b;1m &#x202e;", "[2J ›1m <202e>"),
        (r"\( x_1 * y_1 \) \[ a_{1} * \] $$a_b_$$", r"\( x_1 * y_1 \) \[ a_{1} * \] $$a_b_$$"),
        ("<b>*x*</b> a < b", "<b>/x/</b> a < b"),
        ("*" * 301 + "a *b*", "*" * 301 + "a /b/"),
        ("*" * 301 + "a**b**", "*" * 301 + "a[b]"),
        ("**b***c** d", "[b]/c/* d"),
        ("**" + "a" * 298 + "**", "[" + "a" * 298 + "]"),
        ("**" + "a" * 299 + "**", "**" + "a" * 299 + "**"),
        ("abc**「引用」**def", "abc[「引用」]def"),
    ],
)
def test_spans_are_those_of_commonmark(text, expected):
    for seed in range(5):
        assert marked(shown(cut(text, seed), 400)) == expected


def test_a_mark_that_nothing_closes_holds_back_no_more_than_300_characters():
    text = "**open " + "word " * 100
    assert shown([text], 60).text == shown(list(text), 60).text
    assert "word word" in shown(["**open " + "word " * 60, "x"], 60).text


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("some words (**x**), and", ["some words", "(x), and"]),
        ("some words **bold**: x", ["some words", "bold: x"]),
        ("日本語の**テキスト**、です", ["日本語のテキス", "ト、です"]),
        ("日本語の**テキス**。です", ["日本語のテキ", "ス。です"]),
        ("abc " + "x" * 20, ["abc", "x" * 14, "xxxxxx"]),
    ],
)
def test_rows_break_between_words_and_not_where_a_style_changes(text, rows):
    for seed in range(5):
        assert shown(cut(text, seed), 15).lines == [*rows, ""]


EMOJI = "Phones 📱 ☎️ and 👩‍👩‍👧‍👦, 1️⃣ key, **bold 🇩🇪 flags** e\u0301tude *naïve* 👍🏽 and **more** text 👩‍👩‍👧 end"


@pytest.mark.parametrize("joins", [True, False])
def test_joined_emoji_leave_no_empty_row_and_no_doubled_word(joins):
    """Terminals differ in their cells, and the cursor used to go back too far or not far enough."""
    for seed in range(10):
        screen = shown(cut(EMOJI, seed), 40, joins=joins)
        plain = EMOJI.replace("**", "").replace("*naïve*", "naïve")
        assert " ".join(" ".join(screen.lines).split()) == plain
        assert "" not in screen.lines[:-1]
        assert max(map(len, screen.rows)) < 40


def links(screen):
    """Return [(text, URL)] of the links on a screen."""
    found = []
    for char, styles in (cell for row in screen.rows for cell in row):
        for url in (style for style in styles if ":" in style):
            if found and found[-1][1] == url:
                found[-1] = (found[-1][0] + char, url)
            else:
                found.append((char, url))
    return found


def test_a_link_shows_where_it_leads():
    text = "[the docs](https://x.y/a_b 'title'), <https://x.y>, [https://x.z](https://x.z) and ![a picture](http://p.q/r.png)"
    screen = shown(cut(text, 0), 200)
    assert screen.lines[0] == "the docs (https://x.y/a_b), https://x.y, https://x.z and a picture (http://p.q/r.png)"
    assert links(screen) == [
        ("the docs", "https://x.y/a_b"),
        ("https://x.y", "https://x.y"),
        ("https://x.z", "https://x.z"),
        ("a picture", "http://p.q/r.png"),
    ]


@pytest.mark.parametrize(
    ("address", "seen"),
    [
        ("javascript:alert(1)", "javascript:alert(1)"),
        ("file:///etc/passwd", "file:///etc/passwd"),
        ("/docs", "/docs"),
        ("http://a.b/" + "x" * 250, "http://a.b/" + "x" * 250),
        ("http://a.b/&#27;]8;;&#7;x", "http://a.b/]8;;x"),
        ("http://a.b/&#x202e;x", "http://a.b/<202e>x"),
        ("http://a.b/é\x9b1m", "http://a.b/é<9b>1m"),
        ("<http://a.b/ c>", "http://a.b/ c"),
    ],
)
def test_only_web_addresses_are_followed_and_no_control_character_is_in_one(address, seen):
    screen = shown(cut(f"[text]({address})", 0), 400)  # it fails at a sequence that is not ours
    assert screen.lines[0] == f"text ({seen})"
    urls = [url for _, url in links(screen)]
    assert all(url.isascii() and url.isprintable() and " " not in url for url in urls)
    assert bool(urls) == seen.startswith("http")


def test_the_linux_console_gets_no_link_sequences(monkeypatch):
    monkeypatch.setenv("TERM", "linux")
    assert "\x1b]" not in shown("[x](https://x.y)").written
