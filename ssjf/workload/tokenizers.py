"""Counts the tokens of texts with a tokenizer given by name.

- ``cl100k_base`` and the other encodings of the package tiktoken. It downloads a rank file once;
  without a network, put that file into a folder and name the folder in TIKTOKEN_CACHE_DIR.
- ``hf:FOLDER_OR_ID``: a tokenizer of the package transformers, from a folder or from its hub.
- ``bytes`` (UTF-8) and ``whitespace`` (words) need no package and are rough: English has about
  4 bytes and 0.75 words per token.

Special tokens count as plain text; none is added, not even BOS.
"""

from collections.abc import Callable, Sequence

import numpy as np

from ssjf.errors import InputError, unknown
from ssjf.request import IntArray

ENCODINGS = ("cl100k_base", "o200k_base", "p50k_base", "r50k_base")
KNOWN = (*ENCODINGS, "bytes", "hf:FOLDER_OR_ID", "whitespace")
BATCH = 1024  # texts tokenized at a time, to bound memory

Counter = Callable[[Sequence[str]], list[int]]


def count_tokens(texts: Sequence[str], tokenizer: str) -> IntArray:
    """Count the tokens of each text, int64 (n,)."""
    count = _counter(tokenizer)
    batches = (texts[i : i + BATCH] for i in range(0, len(texts), BATCH))
    return np.array([n for batch in batches for n in count(batch)], np.int64)


def _counter(name: str) -> Counter:
    if name == "bytes":
        return lambda texts: [len(text.encode("utf-8", "surrogatepass")) for text in texts]
    if name == "whitespace":
        return lambda texts: [len(text.split()) for text in texts]
    source = name.removeprefix("hf:")
    if name not in ENCODINGS and source in (name, ""):
        raise unknown("tokenizer", name, KNOWN)
    try:
        return _tiktoken(name) if name in ENCODINGS else _transformers(source)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        raise InputError(
            f"tokenizer {name} needs the package {package}; run pip install {package}"
        ) from None
    except Exception as error:  # loaders raise many types
        why = type(error).__name__
        if name in ENCODINGS:
            raise InputError(
                f"tokenizer {name}: tiktoken cannot get its rank file ({why}); "
                f"without a network, set TIKTOKEN_CACHE_DIR to a folder that holds it"
            ) from None
        raise InputError(
            f"tokenizer {name}: transformers finds no tokenizer in {source} ({why}); "
            f"give a folder with its files, or an id of the hub"
        ) from None


def _tiktoken(name: str) -> Counter:
    import tiktoken

    encoding = tiktoken.get_encoding(name)
    return lambda texts: [len(ids) for ids in encoding.encode_ordinary_batch([*texts])]


def _transformers(source: str) -> Counter:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source)
    return lambda texts: [
        len(ids) for ids in tokenizer([*texts], add_special_tokens=False)["input_ids"]
    ]
