"""Models to measure scheduling with, made on the spot: no download, random or no weights.

The shapes are those of Llama. What a step costs depends on them; what is said does not matter.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssjf.errors import InputError, unknown
from ssjf.files import whole_folder
from ssjf.simulator.shapes import Sizes

WEIGHTS = ("random", "none")
LARGEST_WRITTEN = 500 * 10**6  # bytes of weights; beyond, vLLM makes them up (load_format dummy)

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


@dataclass(frozen=True)
class Shape(Sizes):
    """A Llama."""

    @property
    def parameters(self) -> int:
        """Numbers in the weights (input and output embeddings are one table)."""
        return sum(int(np.prod(shape)) for shape in _tensors(self).values())


SHAPES = {
    "tiny": Shape(2, 256, 4, 2, 512, 1024, 4096),
    "mid": Shape(8, 768, 12, 12, 2048, 1024, 4096),
    "160m": Shape(12, 768, 12, 12, 3072, 32000, 4096),
    "1b": Shape(16, 2048, 32, 8, 8192, 128256, 8192),
    "8b": Shape(32, 4096, 32, 8, 14336, 128256, 8192),
}
"""``1b`` and ``8b`` have the sizes of Llama 3. What a step takes is in the calibrated profiles."""


def make(shape_name: str, out: Path, weights: str | None = None, seed: int = 0) -> Path:
    """Write a model folder that vLLM and transformers read; whole or not at all.

    ``weights`` is ``random`` (bfloat16, from ``seed``) or ``none`` (vLLM's ``--load-format
    dummy``); by default random where they take at most ``LARGEST_WRITTEN`` bytes. The tokenizer
    is a byte-level BPE. Raises InputError for an unknown shape or a folder that is there.
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
        (folder / "config.json").write_text(json.dumps(_config(shape), indent=1) + "\n")
        _write_tokenizer(folder, shape)
        if weights == "random":
            target = folder / "model.safetensors"
            write_safetensors(target, _tensors(shape), _weights(shape, seed), "bfloat16")
    return out


def _config(shape: Shape) -> dict[str, Any]:
    """The contents of ``config.json``."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.hidden,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.hidden // shape.heads,
        "intermediate_size": shape.inner,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.context_tokens,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "torch_dtype": "bfloat16",
    }


def _write_tokenizer(folder: Path, shape: Shape) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

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
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "model_max_length": shape.context_tokens,
        "chat_template": _CHAT,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=1) + "\n")


def _tensors(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the weights."""
    hidden, inner, kv = shape.hidden, shape.inner, shape.kv_heads * shape.hidden // shape.heads
    of_layer: dict[str, tuple[int, ...]] = {
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    return {
        "model.embed_tokens.weight": (shape.vocabulary, hidden),
        "model.norm.weight": (hidden,),
        **{f"model.layers.{i}.{name}.weight": size
           for i in range(shape.layers) for name, size in of_layer.items()},
    }  # fmt: skip


def _weights(shape: Shape, seed: int) -> Iterator[np.ndarray]:
    """Norms are ones, matrices small normal numbers."""
    rng = np.random.default_rng(seed)
    for size in _tensors(shape).values():
        norm = len(size) == 1
        values = np.ones(size) if norm else 0.02 * rng.standard_normal(size, np.float32)
        yield values.astype(np.float32)


def write_safetensors(
    path: Path,
    sizes: Mapping[str, tuple[int, ...]],
    arrays: Iterable[np.ndarray],
    precision: str,
) -> None:
    """Write float32 arrays in the order of ``sizes``, as ``float32`` or ``bfloat16``.

    The safetensors format by hand: numpy has no bfloat16, and the library's own writer of bytes
    takes other arguments in every version. Eight bytes with the length of a JSON header, the
    header, the tensors one after the other.
    """
    kind, width = ("BF16", 2) if precision == "bfloat16" else ("F32", 4)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, size in sizes.items():
        start, end = end, end + width * int(np.prod(size))
        header[name] = {"dtype": kind, "shape": list(size), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for values in arrays:
            file.write(_bfloat16(values) if width == 2 else values.astype("<f4").tobytes())


def _bfloat16(values: np.ndarray) -> bytes:
    """The upper halves of float32, rounded."""
    return ((values.view(np.uint32) + np.uint32(0x8000)) >> 16).astype("<u2").tobytes()
