"""GGUF files of the Llama family as Hugging Face model folders, which vLLM serves.

transformers' own GGUF path drops the pre-tokenizer that splits digits, and so reads some prompts in
other tokens; here the tokenizer is that of llama.cpp.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ssjf.errors import InputError

_PARTS = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}  # fmt: skip
_WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PRE_TOKENIZERS = ("smollm", "llama-bpe", "gpt-2")
"""Of llama.cpp (``llama-vocab.cpp``), those whose rule is known here."""
_SPECIAL = 3  # token type of control tokens


def convert(path: Path, folder: Path, precision: str) -> dict[str, Any]:
    """Write config, tokenizer, chat template and weights of a GGUF file into a folder.

    Parameters
    ----------
    path: the file. folder: an existing, empty one. precision: of the weights, ``float32`` or
    ``bfloat16``.

    Returns
    -------
    The file's metadata by name.

    Raises
    ------
    InputError: for what is no whole GGUF file, another architecture, an unknown tokenizer or a
    model without a chat template.
    """
    from safetensors.torch import save_file

    about, tensors = _read(path)
    _check(path, about, tensors)
    weights = _weights(about, tensors, precision)
    config = _config(about, tied="lm_head.weight" not in weights, precision=precision)
    end = config["eos_token_id"]
    for name, value in (
        ("config", config),
        ("generation_config", {"bos_token_id": config["bos_token_id"], "eos_token_id": end}),
        ("tokenizer_config", _tokenizer_config(about)),
    ):
        (folder / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n")
    (folder / "chat_template.jinja").write_text(about["tokenizer.chat_template"])
    _tokenizer(about).save(str(folder / "tokenizer.json"))
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
    if any(each.name == "rope_freqs.weight" for each in tensors):
        raise InputError(f"{path} scales its rotary positions by a table of its own; get the model "
                         "as a Hugging Face folder")  # fmt: skip


def _name(name: str) -> str:
    """What transformers calls a tensor of llama.cpp."""
    parts = name.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{_PARTS[parts[2]]}.{parts[3]}"
    return f"{_WHOLE[parts[0]]}.{parts[1]}"


def _weights(about: dict[str, Any], tensors: list[Any], precision: str) -> dict[str, Any]:
    """PyTorch's tensors, by transformers' names."""
    import torch
    from gguf.quants import dequantize

    heads = {"attn_q": about["llama.attention.head_count"],
             "attn_k": about["llama.attention.head_count_kv"]}  # fmt: skip
    weights = {}
    for each in tensors:
        values = dequantize(each.data, each.tensor_type).astype(np.float32)
        n = heads.get(each.name.split(".")[-2])
        values = values if n is None else _unpermuted(values, n)
        weights[_name(each.name)] = torch.from_numpy(values).to(getattr(torch, precision))
    return weights


def _unpermuted(weights: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp interleaves the halves of each head's rows for its rotary layout."""
    pairs = weights.reshape(heads, weights.shape[0] // heads // 2, 2, *weights.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(weights.shape)


def _config(about: dict[str, Any], tied: bool, precision: str) -> dict[str, Any]:
    hidden, heads = about["llama.embedding_length"], about["llama.attention.head_count"]
    special = {f"{name}_token_id": about.get(f"tokenizer.ggml.{key}_token_id")
               for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))}  # fmt: skip
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": about["llama.feed_forward_length"],
        "num_hidden_layers": about["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": about.get("llama.attention.head_count_kv", heads),
        "head_dim": hidden // heads,
        "max_position_embeddings": about["llama.context_length"],
        # stored as float32: 1e-5 comes back as 9.999999747e-06
        "rms_norm_eps": float(f"{about['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_theta": float(about.get("llama.rope.freq_base", 10000.0)),
        "vocab_size": len(about["tokenizer.ggml.tokens"]),
        "tie_word_embeddings": tied,
        "attention_bias": False,
        "mlp_bias": False,
        "torch_dtype": precision,
        **special,
    }


def _tokenizer_config(about: dict[str, Any]) -> dict[str, Any]:
    tokens = about["tokenizer.ggml.tokens"]
    named = {f"{name}_token": about.get(f"tokenizer.ggml.{key}_token_id") for name, key in
             (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown"))}  # fmt: skip
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": about["llama.context_length"],
        "clean_up_tokenization_spaces": False,
        "chat_template": about["tokenizer.chat_template"],
        **{name: tokens[i] for name, i in named.items() if i is not None},
    }


def _tokenizer(about: dict[str, Any]) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, processors

    tokens = about["tokenizer.ggml.tokens"]
    rule = about["tokenizer.ggml.pre"]
    merges = [tuple(each.split(" ")) for each in about["tokenizer.ggml.merges"]]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    # Llama 3 takes a word that is a token as it is, whatever the merges say
    model = models.BPE(vocab=vocabulary, merges=merges, ignore_merges=rule == "llama-bpe")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = _pre_tokenizer(rule)
    tokenizer.decoder = decoders.ByteLevel()
    types = about["tokenizer.ggml.token_type"]
    special = [token for token, kind in zip(tokens, types, strict=True) if kind == _SPECIAL]
    tokenizer.add_special_tokens([AddedToken(each, normalized=False) for each in special])
    if about.get("tokenizer.ggml.add_bos_token"):
        first = tokens[about["tokenizer.ggml.bos_token_id"]]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{first} $A", pair=f"{first} $A $B", special_tokens=[(first, vocabulary[first])]
        )
    return tokenizer


def _pre_tokenizer(rule: str) -> Any:
    from tokenizers import Regex, pre_tokenizers

    if rule == "llama-bpe":
        split = pre_tokenizers.Split(Regex(_LLAMA3), "isolated")
        return pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
    bytes_of_words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if rule == "gpt-2":
        return bytes_of_words
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), bytes_of_words])
