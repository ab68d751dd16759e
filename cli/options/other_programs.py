"""Commands and options that other programs have, and what does the same here."""

LIST = "'mistral-mlx models' lists the models"
CHAT = "'mistral-mlx chat -m MODEL' talks to a model, 'mistral-mlx complete -m MODEL' answers once"
REMOVE = "'mistral-mlx models remove NAME' forgets a name; its folder stays"
NO_SERVER = "an HTTP server is not included"
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
OF_GROUPS = {"models": OF_MODELS, "config": OF_CONFIG}

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
SPEEDS = "--stats prints counts and speeds"
WINDOWED = "the context has no size to set; --window N bounds the memory (eval has --context)"
OPTIONS_OF_OTHERS = {  # that none of ours can stand for
    "--ctx-size": WINDOWED,
    "--format": "--schema binds the answer to a form, --json writes a record of it",
    "--gpu-layers": GPU,
    "--max-kv-size": "--window N --sinks 4 bounds the memory",
    "--n-gpu-layers": GPU,
    "--num-ctx": WINDOWED,
    "--prompt": QUOTED,
    "--verbose": SPEEDS,
    "-p": QUOTED,
    "-s": "it is --system for llm and --seed for llama-cli; write out the one you mean",
    "-v": SPEEDS,
}


def our_spelling(name: str) -> str:
    """Return the name of an option, without its dashes, as this program spells it."""
    name = name.replace("_", "-")
    return SPELLINGS.get(name, name)
