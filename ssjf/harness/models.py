"""Make models to measure scheduling with: shapes of Llama, with random weights or none.

The time of a step depends on the shape alone, not on what the model says. Making one needs PyTorch
and transformers (the extra ``train`` or ``vllm``).
"""

from pathlib import Path
from typing import Any

from ssjf.errors import InputError, unknown
from ssjf.files import whole_folder
from ssjf.simulator.shapes import Sizes

WEIGHTS = ("random", "none")
LARGEST_WRITTEN = 500 * 10**6  # bytes of weights; larger ones vLLM makes up (load_format dummy)

_SENTENCES = (
    "The shortest request goes first, unless a longer one has waited for too long.",
    "Write a function that sorts a list of numbers, and explain how fast it is.",
    "Give three reasons why a long answer holds up the short ones behind it.",
    "Summarise this conversation in one sentence: user, assistant, user, assistant.",
)
_CHAT = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


class Shape(Sizes):
    """Sizes of a Llama whose input and output embeddings are one table."""

    @property
    def parameters(self) -> int:
        """Number of weights."""
        attention = 2 * self.hidden * self.hidden * (self.heads + self.kv_heads) // self.heads
        per_layer = attention + 3 * self.hidden * self.inner + 2 * self.hidden
        return self.vocabulary * self.hidden + self.layers * per_layer + self.hidden


SHAPES = {
    "tiny": Shape(2, 256, 4, 2, 512, 1024, 4096),
    "mid": Shape(8, 768, 12, 12, 2048, 1024, 4096),
    "160m": Shape(12, 768, 12, 12, 3072, 32000, 4096),
    "1b": Shape(16, 2048, 32, 8, 8192, 128256, 8192),
    "8b": Shape(32, 4096, 32, 8, 14336, 128256, 8192),
}
"""``1b`` and ``8b`` have the sizes of Llama 3. Step times are in the calibrated profiles."""


def make(shape_name: str, out: Path, weights: str | None = None, seed: int = 0) -> Path:
    """Write a model folder that vLLM and transformers read, whole or not at all; return it.

    ``weights`` is ``random`` (bfloat16, from ``seed``) or ``none`` (vLLM's ``--load-format
    dummy``); by default random if they take at most ``LARGEST_WRITTEN`` bytes. The tokenizer is a
    byte-level BPE. InputError for an unknown shape or a folder that exists.
    """
    if shape_name not in SHAPES:
        raise unknown("shape", shape_name, SHAPES)
    shape = SHAPES[shape_name]
    fits = 2 * shape.parameters <= LARGEST_WRITTEN
    weights = weights or ("random" if fits else "none")
    if weights not in WEIGHTS:
        raise unknown("kind of weights", weights, WEIGHTS)
    if weights == "random" and not fits:
        raise InputError(
            f"weights of shape {shape_name} take {2 * shape.parameters / 1e9:.1f} GB; "
            "give --weights none and start vLLM with --load-format dummy"
        )
    if out.exists():
        raise InputError(f"{out} exists; give a new folder")
    with whole_folder(out) as folder:
        config = _config(shape)
        config.save_pretrained(folder)
        _tokenizer(shape).save_pretrained(folder)
        if weights == "random":
            import torch
            from transformers import LlamaForCausalLM
            from transformers.utils import logging

            logging.disable_progress_bar()
            torch.manual_seed(seed)
            LlamaForCausalLM(config).bfloat16().save_pretrained(folder)
    return out


def _config(shape: Shape) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        num_hidden_layers=shape.layers,
        hidden_size=shape.hidden,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.inner,
        vocab_size=shape.vocabulary,
        max_position_embeddings=shape.context_tokens,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        dtype="bfloat16",
    )


def _tokenizer(shape: Shape) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=min(shape.vocabulary, 512),
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", chat_template=_CHAT,
        model_max_length=shape.context_tokens,
    )  # fmt: skip
