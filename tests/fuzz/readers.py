"""All readers that the fuzzer calls, by name: each makes a random case and reads it.

A reader is a class whose instances are called with the generator. It may raise what `expected` names, and nothing
else. It asserts what the rest of the program expects of a case that is accepted.
"""

from fuzz.conversations import Kept, Saved, Template
from fuzz.gguf_files import GGUF
from fuzz.grammars import GBNF, Lark, Regex, ShortForm
from fuzz.model_folders import Config, Folder, Header, Index, Model
from fuzz.native_calls import Kernels
from fuzz.reader import Reader
from fuzz.schemas import Schemas
from fuzz.sources import SOURCE_READERS
from fuzz.tokenizer_files import JSONTokenizer, Sentencepiece, Tekken

READERS: dict[str, type[Reader]] = {
    "safetensors": Header,
    "index": Index,
    "config": Config,
    "gguf": GGUF,
    "tokenizer.json": JSONTokenizer,
    "tekken": Tekken,
    "tokenizer.model": Sentencepiece,
    "template": Template,
    "session": Saved,
    "kept": Kept,
    "folder": Folder,
    "model": Model,
    "kernels": Kernels,
    "regex": Regex,
    "lark": Lark,
    "gbnf": GBNF,
    "short form": ShortForm,
    "schema": Schemas,
    **SOURCE_READERS,
}
