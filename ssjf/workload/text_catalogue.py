"""The text data sets known by name: prompts with answers, or with the lengths of answers.

They are looked for where the other data sets are (see catalogue). Only those published as one file
at a pinned URL are downloaded: the others are gated, too large, or put together from several files.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ssjf.errors import InputError, unknown
from ssjf.workload.catalogue import RAW, Source, folders, search


@dataclass(frozen=True)
class TextSet:
    """A text data set: its files, under any one of these names (a pattern may match several)."""

    name: str
    licence: str
    note: str
    url: str
    get: str  # how to have the files, as a sentence
    files: tuple[str, ...]
    sha256: str | None = None  # of files[0]
    kind = "texts"

    @property
    def source(self) -> Source | None:
        """The one published file, where ``url`` is that of one of the files."""
        name = self.url.rpartition("/")[2]
        return Source(name, None, self.url) if name in self.files else None

    @property
    def names(self) -> list[tuple[str, ...]]:
        """Each name of its files on its own: any one of them will do."""
        return [(name,) for name in self.files]

    @property
    def how(self) -> str:
        """How to have the files, with their licence."""
        run = f"run `ssjf data get {self.name}`, or " if self.source else ""
        return f"{run}{self.get} from {self.url} (licence: {self.licence})"


GITHUB = "https://github.com"
HUB = "https://huggingface.co/datasets"

_ALL = (
    TextSet(
        "alpaca-vicuna",
        "CC BY-NC 4.0 (texts); the Vicuna lengths state none",
        "51,972 Alpaca prompts, text-davinci-003; 20,000 with vicuna7b_len_t00, t03, t05, t07",
        f"{GITHUB}/zhengzangw/Sequence-Scheduling/tree/3992f34113d1b0649e057d4608876ccfa78e8333/data",
        "join alpaca_data.json of tatsu-lab/stanford_alpaca with the lengths there: their ids are "
        "its rows, counted from 1",
        ("alpaca_davinci_vicuna.parquet",),
        "ebcb7f29701eaaa0508e50606923a9a9672dddcfc002320e77b5311f32f744f5",
    ),
    TextSet(
        "halueval",
        "MIT",
        "4,507 general prompts, gpt-3.5-turbo answers of up to 256 tokens",
        f"{RAW}/RUCAIBox/HaluEval/b7253db3cdaa0ab2c382f92b26b390109174f77e/data/general_data.json",
        "download general_data.json",
        ("halueval_chatgpt.parquet", "general_data.json"),
        "f2a0b75658c61d9a082b429adc584c8fce739488ffee9240c84128e6b63db06f",
    ),
    TextSet(
        "codealpaca",
        "CC BY-NC 4.0",
        "2,015 programming prompts, text-davinci-003",
        f"{RAW}/sahil280114/codealpaca/2f78ddc5c682ed6738ad092bbbfa59ba915afcb0/data/code_alpaca_2k.json",
        "download code_alpaca_2k.json",
        ("codealpaca_2k.parquet", "code_alpaca_2k.json"),
        "a7f6a46876b53e287abd77b6159fccbcf9fcdd350d4a7841c33cc5c7a8732f46",
    ),
    TextSet(
        "sharegpt",
        "of its users; the cleaned files say Apache-2.0",
        "conversations of users with ChatGPT, many cut into pieces; a sample has 3,565 turns",
        f"{HUB}/anon8231489123/ShareGPT_Vicuna_unfiltered",
        "download ShareGPT_V3_unfiltered_cleaned_split.json",
        ("sharegpt_sample.parquet", "ShareGPT_V3_unfiltered_cleaned_split.json"),
        "78794219c22d87479fdce708ba0999bcb79885e7c1a7e1c480b515a93c995c0d",
    ),
    TextSet(
        "moss",
        "CC BY-NC 4.0",
        "3,323 turns of gpt-3.5-turbo talking to itself, English and Chinese",
        f"{GITHUB}/OpenLMLab/MOSS/tree/c810e0b428bb209522dcde12f58daa318cf83027/SFT_data",
        "write one row per turn: conversation_id, turn, prompt, response",
        ("moss_multiturn_sample.parquet",),
        "3ccbff2b6d38d15abe3e39d417f2c5947d4087d4da9676b04b2bbe56cd4ee889",
    ),
    TextSet(
        "alpaca-eval",
        "CC BY-NC 4.0",
        "805 prompts, each answered by 12 models",
        f"{GITHUB}/tatsu-lab/alpaca_eval/tree/cd543a149df89434d8a54582c0151c0b945c3d20/results",
        "write the rows of each results/MODEL/model_outputs.json into one file",
        ("alpaca_eval_responses_12_models.parquet",),
        "fc564d4a9d7cf900f512fc59e86077ac7f1bc03e40290f3561dc37d139bfcd11",
    ),
    TextSet(
        "lmsys-chat-1m",
        "LMSYS-Chat-1M Dataset License Agreement (gated, not to be passed on)",
        "1,000,000 conversations of users with 25 models",
        f"{HUB}/lmsys/lmsys-chat-1m",
        "log in, accept its licence, and download its six parquet files into a folder "
        "lmsys-chat-1m",
        ("lmsys-chat-1m/train-*.parquet", "lmsys-chat-1m.jsonl"),
    ),
)

TEXTS = {each.name: each for each in _ALL}


def find_texts(name: str) -> list[Path]:
    """The files of a text data set, in $SSJF_DATA (or two folders below), then in the cache.

    Raises InputError where there are none, and for a file with another checksum than the known.
    """
    if name not in TEXTS:
        raise unknown("text data set", name, TEXTS)
    wanted = TEXTS[name]
    here = search(wanted.names)
    if here:
        return _checked(wanted, here[1])
    raise InputError(
        f"text data set {name} is not here: no {' or '.join(wanted.files)} in "
        f"{' or '.join(map(str, folders()))}; {wanted.how}"
    )


def _checked(wanted: TextSet, paths: list[Path]) -> list[Path]:
    known = wanted.sha256 if paths[0].name == wanted.files[0] else None
    if known and hashlib.sha256(paths[0].read_bytes()).hexdigest() != known:
        raise InputError(
            f"{paths[0]} is not the file of text data set {wanted.name} that is known: its "
            f"sha256 must be {known}"
        )
    return paths
