"""The values of `format` that are kept, each as an expression at least as strict as every reader of that format."""

YEAR = "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
LEAP_YEAR = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
DAY = (
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
DATE = f"(?:{YEAR}-{DAY}|{LEAP_YEAR}-02-29)"
DOT, SLASH = r"\x{2e}", r"\x{2f}"
TIME = (
    f"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:{DOT}[0-9]{{1,6}})?"
    r"(?:Z|[\x{2b}\x{2d}](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)

LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9]{0,62}|[a-zA-Z0-9]{0,20}-[a-zA-Z0-9]{1,40})"
LAST_LABEL = "[a-zA-Z](?:[a-zA-Z0-9]{0,62}|[a-zA-Z0-9]{0,20}-[a-zA-Z0-9]{1,40})"
HOST = f"(?:{LABEL}{DOT}){{0,2}}{LAST_LABEL}"  # 191 characters at most, of 253
LOWER_HOST = HOST.replace("a-zA-Z", "a-z")
ATOM = r"[a-zA-Z0-9!#$%&'*\x{2b}\x{2f}=?\x{5e}_`{|}~\x{2d}]"
EMAIL = f"{ATOM}{{1,20}}(?:{DOT}{ATOM}{{1,20}}){{0,2}}@{HOST}"

BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
IPV4 = f"{BYTE}(?:{DOT}{BYTE}){{3}}"
H = "[0-9a-fA-F]{1,4}"
IPV6 = "(?:" + "|".join([f"(?:{H}:){{7}}{H}", *(f"(?:{H}(?::{H}){{0,{n}}})?::(?:{H}(?::{H}){{0,{5 - n}}})?" for n in range(6))]) + ")"  # fmt: skip # noqa: E501

HEX = "[0-9a-fA-F]"
UUID = f"{HEX}{{8}}-{HEX}{{4}}-{HEX}{{4}}-{HEX}{{4}}-{HEX}{{12}}"

PCHAR = r"(?:[a-zA-Z0-9\x{2d}._~!$&'()*\x{2b},;=:@]|%[0-9a-fA-F]{2})"
TAIL = rf"(?:\x{{3f}}(?:{PCHAR}|[\x{{2f}}\x{{3f}}])*)?(?:\x{{23}}(?:{PCHAR}|[\x{{2f}}\x{{3f}}])*)?"
URI = rf"[a-zA-Z][a-zA-Z0-9\x{{2b}}]*:(?:{SLASH}{SLASH}{HOST}(?::[0-9]{{1,4}})?(?:{SLASH}{PCHAR}*)*|{PCHAR}+){TAIL}"
REFERENCE = rf"(?:{URI}|(?:{SLASH}{PCHAR}+)+{TAIL}|\x{{23}}{PCHAR}*)"

DURATION_TIME = "T(?:[0-9]{1,4}H(?:[0-9]{1,4}M(?:[0-9]{1,4}S)?)?|[0-9]{1,4}M(?:[0-9]{1,4}S)?|[0-9]{1,4}S)"
DURATION_DATE = "(?:[0-9]{1,4}Y(?:[0-9]{1,4}M(?:[0-9]{1,4}D)?)?|[0-9]{1,4}M(?:[0-9]{1,4}D)?|[0-9]{1,4}D)"
DURATION = f"P(?:{DURATION_DATE}(?:{DURATION_TIME})?|{DURATION_TIME}|[0-9]{{1,4}}W)"

POINTER = rf"(?:{SLASH}(?:[a-zA-Z0-9_\x{{2d}}. ]|~[01])*)*"

FORMATS = {
    "date": DATE,
    "time": TIME,
    "date-time": f"{DATE}T{TIME}",
    "duration": DURATION,
    "email": EMAIL,
    "idn-email": EMAIL,
    "hostname": HOST,
    "idn-hostname": LOWER_HOST,
    "ipv4": IPV4,
    "ipv6": IPV6,
    "uuid": UUID,
    "uri": URI,
    "iri": URI,
    "uri-reference": REFERENCE,
    "iri-reference": REFERENCE,
    "json-pointer": POINTER,
    "relative-json-pointer": rf"(?:0|[1-9][0-9]{{0,2}})(?:\x{{23}}|{POINTER})",
    **{f"uuid{n}": f"{HEX}{{8}}-{HEX}{{4}}-{n}{HEX}{{3}}-[89abAB]{HEX}{{3}}-{HEX}{{12}}" for n in range(1, 9)},
}

# Names that readers of schemas check, and that cannot be kept. All others only say what a text is for.
CHECKED = frozenset(("regex", "uri-template", "color", "ip-address", "host-name"))
