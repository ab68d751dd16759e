"""Commands that other programs have, and what does the same here."""

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
