"""A model folder for commands: tiny random weights and a sentencepiece tokenizer (v3)."""

import io
import json

import numpy as np
import sentencepiece
from helpers.models import tiny_config, tiny_weights, write_folder

from mistral_mlx.model.args import ModelArgs

TEXT = """The capital of a country is where its government sits. Once upon a time there was a king who had no crown.
What is the answer? Write a short message about the window, the ring and the keys that are behind it."""


CHAT_TOKENS = ["[INST]", "[/INST]", "[PREFIX]"]
TOOL_TOKENS = ["[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]"]


def write_tiny_folder(path, *, chat=True, tools=False, seed=0, **changes):
    """Write the folder; without `chat` it is a base model, which only continues text."""
    tokenizer = train_tokenizer([*CHAT_TOKENS, *(TOOL_TOKENS if tools else [])])
    vocab_size = sentencepiece.SentencePieceProcessor(model_proto=tokenizer).get_piece_size()
    config = tiny_config(vocab_size=vocab_size, **changes)
    write_folder(path, config, tiny_weights(ModelArgs.from_config(config), seed=seed))
    (path / "tokenizer.model").write_bytes(tokenizer)
    if not chat:
        (path / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": True}))
    return path


def train_tokenizer(control=CHAT_TOKENS):
    """Return a sentencepiece model with some of Mistral's v3 control pieces and byte fallback."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()),
        model_writer=model,
        model_type="bpe",
        vocab_size=340,
        byte_fallback=True,
        control_symbols=control,
        minloglevel=2,
    )
    return model.getvalue()


def repeat_forever(path, piece="▁the"):
    """Change the weights in `path` so that the model writes only one piece, for any prompt."""
    import mlx.core as mx

    processor = sentencepiece.SentencePieceProcessor(model_file=str(path / "tokenizer.model"))
    weights = dict(mx.load(str(path / "model.safetensors")).items())
    head = np.zeros(weights["lm_head.weight"].shape, np.float32)
    norm = np.zeros(head.shape[1], np.float32)
    norm[0], head[processor.piece_to_id(piece), 0] = 1.0, 100.0
    embedding = np.array(weights["model.embed_tokens.weight"])
    embedding[:, 0] = 100.0  # so large that nothing the blocks add changes its sign
    weights |= {"lm_head.weight": mx.array(head), "model.norm.weight": mx.array(norm)}
    weights["model.embed_tokens.weight"] = mx.array(embedding)
    mx.eval(list(weights.values()))
    mx.save_safetensors(str(path / "model.safetensors"), weights)
    return path
