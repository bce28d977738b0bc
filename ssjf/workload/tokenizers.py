"""Counting the tokens of texts with a tokenizer asked for by name.

- ``cl100k_base`` and the other encodings of the package tiktoken. It downloads a rank file once;
  without a network, put that file into a folder and name the folder in TIKTOKEN_CACHE_DIR.
- ``hf:FOLDER_OR_ID``: a tokenizer of the package transformers, from a folder or from its hub.
- ``bytes`` (UTF-8) and ``whitespace`` (words between white space) need no package and are rough:
  English has about 4 bytes and 0.75 words a token.

Special tokens count as plain text and none is added, no BOS either.
"""

from collections.abc import Callable, Sequence

import numpy as np

from ssjf.errors import InputError, unknown
from ssjf.request import IntArray

ENCODINGS = ("cl100k_base", "o200k_base", "p50k_base", "r50k_base")
KNOWN = (*ENCODINGS, "bytes", "hf:FOLDER_OR_ID", "whitespace")
BATCH = 1024  # texts tokenized at a time, which bounds the memory their ids take

Counter = Callable[[Sequence[str]], list[int]]


def count_tokens(texts: Sequence[str], tokenizer: str) -> IntArray:
    """The number of tokens of each text, int64 (n,).

    Raises InputError for an unknown tokenizer, a package that is missing and files that cannot
    be had.
    """
    count = _counter(tokenizer)
    batches = (texts[i : i + BATCH] for i in range(0, len(texts), BATCH))
    return np.array([n for batch in batches for n in count(batch)], np.int64)


def _counter(name: str) -> Counter:
    if name in ENCODINGS:
        return _tiktoken(name)
    if name.startswith("hf:") and name != "hf:":
        return _transformers(name)
    if name == "bytes":
        return lambda texts: [len(text.encode("utf-8", "surrogatepass")) for text in texts]
    if name == "whitespace":
        return lambda texts: [len(text.split()) for text in texts]
    raise unknown("tokenizer", name, KNOWN)


def _tiktoken(name: str) -> Counter:
    try:
        import tiktoken

        encoding = tiktoken.get_encoding(name)
    except ModuleNotFoundError as error:
        raise _missing(name, error) from None
    except Exception as error:  # whatever the download or the rank file may raise
        raise InputError(
            f"tokenizer {name}: tiktoken cannot get its rank file ({type(error).__name__}); "
            f"without a network, set TIKTOKEN_CACHE_DIR to a folder that holds it"
        ) from None
    return lambda texts: [len(ids) for ids in encoding.encode_ordinary_batch([*texts])]


def _transformers(name: str) -> Counter:
    source = name.removeprefix("hf:")
    try:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(source)
    except ModuleNotFoundError as error:
        raise _missing(name, error) from None
    except Exception as error:  # its loaders raise whatever the files or the hub make them
        raise InputError(
            f"tokenizer {name}: transformers finds no tokenizer in {source} "
            f"({type(error).__name__}); give a folder with its files, or an id of the hub"
        ) from None
    return lambda texts: [
        len(ids) for ids in tokenizer([*texts], add_special_tokens=False)["input_ids"]
    ]


def _missing(name: str, error: ModuleNotFoundError) -> InputError:
    package = (error.name or "").partition(".")[0]
    return InputError(f"tokenizer {name} needs the package {package}; run pip install {package}")
