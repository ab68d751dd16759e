"""Commands that other programs have, and what does the same here."""

LIST = "'mistral-mlx models' lists the models"
CHAT = "'mistral-mlx chat -m MODEL' talks to a model, 'mistral-mlx complete -m MODEL' answers once"
NO_SERVER = "an HTTP server is not included"
OF_OTHERS = {  # of ollama, lms, hf and mlx_lm
    "run": CHAT,
    "generate": CHAT,
    "list": LIST,
    "ls": LIST,
    "show": "'mistral-mlx info MODEL' describes a model",
    "rm": "'mistral-mlx models remove NAME' forgets a name; its folder stays",
    "serve": NO_SERVER,
    "server": NO_SERVER,
    "get": "'mistral-mlx pull ORG/REPO' fetches a model",
    "download": "'mistral-mlx pull ORG/REPO' fetches a model",
    "help": "'mistral-mlx --help' lists the commands, 'mistral-mlx COMMAND --help' the options of one",
}
