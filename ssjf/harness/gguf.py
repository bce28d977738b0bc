"""Convert GGUF files of the Llama family to Hugging Face model folders, which vLLM serves.

transformers reads a GGUF file's configuration. Its tokenizer of such a file does not split digits,
and adds a token beyond the vocabulary of some models; its weights need accelerate. So tokenizer and
weights are read here, as by llama.cpp.
"""

from pathlib import Path
from typing import Any

import numpy as np

from ssjf.errors import InputError

_HF_NAMES = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}  # fmt: skip
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PRE_TOKENIZERS = ("smollm", "llama-bpe", "gpt-2")
"""The pre-tokenizers of llama.cpp (``llama-vocab.cpp``) whose rule is known here."""
_SPECIAL = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}  # llama.cpp's names
_CONTROL = 3  # token type


def convert(path: Path, folder: Path, precision: str) -> dict[str, Any]:
    """Write config, tokenizer, chat template and weights of a GGUF file into a folder.

    precision: of the weights, ``float32`` or ``bfloat16``. Returns the file's metadata by name.
    InputError if the file is not a whole GGUF file, or has another architecture, an unknown
    tokenizer or no chat template.
    """
    from safetensors.torch import save_file
    from transformers import GenerationConfig, LlamaConfig

    about, tensors = _read(path)
    _check(path, about, tensors)
    config = LlamaConfig.from_pretrained(path.parent, gguf_file=path.name)
    config.update({
        "architectures": ["LlamaForCausalLM"],
        "dtype": precision,
        # stored as float32: 1e-5 comes back as 9.999999747e-06
        "rms_norm_eps": float(f"{config.rms_norm_eps:.6g}"),
    })  # fmt: skip
    config.save_pretrained(folder)
    special = {"bos_token_id": config.bos_token_id, "eos_token_id": config.eos_token_id}
    GenerationConfig(**special).save_pretrained(folder)
    _tokenizer(about).save_pretrained(folder)
    weights = _weights(config, tensors, precision)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return about


def _read(path: Path) -> tuple[dict[str, Any], list[Any]]:
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        return {key: field.contents() for key, field in reader.fields.items()}, reader.tensors
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from None
    except (ValueError, IndexError, KeyError) as error:
        why = " ".join(str(error).split())
        raise InputError(f"{path} is not a whole GGUF file ({why})") from None


def _check(path: Path, about: dict[str, Any], tensors: list[Any]) -> None:
    architecture = about.get("general.architecture")
    if architecture != "llama":
        raise InputError(f"{path}: the architecture is {architecture}; it must be llama")
    if "tokenizer.chat_template" not in about:
        raise InputError(f"{path} has no chat template; an instruct model has one")
    kind, rule = about.get("tokenizer.ggml.model"), about.get("tokenizer.ggml.pre")
    if kind != "gpt2" or rule not in PRE_TOKENIZERS:
        raise InputError(f"{path}: the tokenizer is {kind}, {rule}; known are those of model gpt2 "
                         f"with pre-tokenizer {', '.join(PRE_TOKENIZERS)}")  # fmt: skip
    if any(tensor.name == "rope_freqs.weight" for tensor in tensors):
        raise InputError(f"{path} scales its rotary positions by a table of its own; get the model "
                         "as a Hugging Face folder")  # fmt: skip


def _weights(config: Any, tensors: list[Any], precision: str) -> dict[str, Any]:
    import torch
    from gguf.quants import dequantize

    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    weights = {}
    for tensor in tensors:
        *block, part, kind = tensor.name.split(".")  # as blk.3.attn_q.weight
        prefix = f"model.layers.{block[1]}." if block else ""
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if part in heads:  # llama.cpp interleaves the halves of each head's rows
            halves = values.reshape(heads[part], -1, 2, values.shape[1]).swapaxes(1, 2)
            values = np.ascontiguousarray(halves).reshape(values.shape)
        name = f"{prefix}{_HF_NAMES[part]}.{kind}"
        weights[name] = torch.from_numpy(values).to(getattr(torch, precision))
    return weights


def _tokenizer(about: dict[str, Any]) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, processors
    from tokenizers import pre_tokenizers as pre
    from transformers import PreTrainedTokenizerFast

    tokens, rule = about["tokenizer.ggml.tokens"], about["tokenizer.ggml.pre"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    merges = [tuple(merge.split(" ")) for merge in about["tokenizer.ggml.merges"]]
    is_llama3 = rule == "llama-bpe"  # a word that is itself a token is not merged
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=is_llama3))
    digits, words = pre.Digits(individual_digits=True), pre.Split(Regex(_LLAMA3), "isolated")
    first: Any = {"smollm": [digits], "llama-bpe": [words], "gpt-2": []}[rule]
    of_bytes = pre.ByteLevel(add_prefix_space=False, use_regex=not is_llama3)
    backend.pre_tokenizer = pre.Sequence([*first, of_bytes])
    backend.decoder = decoders.ByteLevel()
    types = about["tokenizer.ggml.token_type"]
    control = [token for token, kind in zip(tokens, types, strict=True) if kind == _CONTROL]
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in control])
    ids = {name: about.get(f"tokenizer.ggml.{key}_token_id") for name, key in _SPECIAL.items()}
    special = {f"{name}_token": tokens[i] for name, i in ids.items() if i is not None}
    if about.get("tokenizer.ggml.add_bos_token"):
        bos = special["bos_token"]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, vocabulary[bos])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=about["llama.context_length"],
        clean_up_tokenization_spaces=False, chat_template=about["tokenizer.chat_template"],
        **special,
    )  # fmt: skip
