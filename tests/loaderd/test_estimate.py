"""What files tell of the memory that their load takes. Real loads are measured in tests/contract/test_estimate.py."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import pickle
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loaderd import catalogue, estimate
from loaderd.estimate import content
from loaderd.protocol import ArtifactFile, ModelSpec

MIB = 2**20
FORMATS = sorted(estimate.FORMATS)
NAMES = {
    "pickle": "model.pkl",
    "joblib": "model.joblib",
    "skops": "model.skops",
    "safetensors": "model.safetensors",
    "torch-weights": "pytorch_model.bin",
    "keras": "model.keras",
    "saved-model": "export/saved_model.pb",
}


def spec(directory: Path, framework: str, format_name: str, files: dict[str, bytes]) -> ModelSpec:
    """Written to disk, with its manifest."""
    for name, data in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    manifest = tuple(ArtifactFile(name, len(data), 1, 1, "") for name, data in files.items())
    return ModelSpec("m", "m", "1", framework, format_name, str(directory), "", manifest)


def zipped(entries: dict[str, bytes]) -> bytes:
    import io

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def safetensors(**tensors: tuple[str, list[int], int]) -> bytes:
    """name -> (dtype, shape, bytes)."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape, count) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + count]}
        at += count
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(at)


def test_every_format_that_can_be_loaded_has_an_estimate_of_its_own() -> None:
    known = {(entry.name, found.name) for entry in catalogue.BUILT_IN for found in entry.formats}
    assert known - set(estimate.FORMATS) == {("tensorflow", "h5")}, "which is never loaded"


class TestPickles:
    WORDS = {f"word{number}": number for number in range(5000)}

    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    def test_objects_are_never_undercounted(self, tmp_path: Path, protocol: int) -> None:
        path = tmp_path / "model.pkl"
        path.write_bytes(pickle.dumps(self.WORDS, protocol))
        found = content.pickled(path)
        assert found is not None
        assert found.size_bytes == path.stat().st_size
        assert 5000 <= found.objects <= 15_000

    @pytest.mark.parametrize(
        "pack",
        [
            zlib.compress,
            gzip.compress,
            bz2.compress,
            lzma.compress,
            lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
        ],
        ids=["zlib", "gzip", "bz2", "xz", "lzma"],
    )
    def test_a_compressed_one_counts_as_what_is_in_it(self, tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
        plain, packed = tmp_path / "plain.joblib", tmp_path / "packed.joblib"
        plain.write_bytes(pickle.dumps(self.WORDS))
        packed.write_bytes(pack(plain.read_bytes()))
        assert packed.stat().st_size < plain.stat().st_size
        assert content.pickled(packed) == content.pickled(plain)

    def test_arrays_count_by_their_size_and_words_by_their_number(self, tmp_path: Path) -> None:
        array = spec(tmp_path / "a", "sklearn", "pickle", {"model.pkl": pickle.dumps(bytes(1_000_000))})
        words = spec(tmp_path / "w", "sklearn", "pickle", {"model.pkl": pickle.dumps([str(n) for n in range(125_000)])})
        base = estimate.BASE_BYTES["sklearn"]
        assert 2.5e6 < estimate.peak_bytes(array) - base < 4e6
        assert estimate.peak_bytes(words) - base > 25 * words.size_bytes

    def test_what_is_too_long_to_be_unpacked_is_extrapolated(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rng = random.Random(0)
        data = pickle.dumps([rng.randbytes(1000) for _ in range(8000)])
        (tmp_path / "plain.pkl").write_bytes(data)
        (tmp_path / "packed.pkl").write_bytes(zlib.compress(data))
        monkeypatch.setattr(content, "SCANNED_BYTES", 2 * MIB)
        monkeypatch.setattr(content, "INFLATED_BYTES", 2 * MIB)
        for name in ("plain.pkl", "packed.pkl"):
            found = content.pickled(tmp_path / name)
            assert found is not None
            assert 1.2 * len(data) < found.size_bytes < 1.8 * len(data)
            assert found.objects >= 8000

    def test_a_small_file_that_unpacks_to_much_is_no_small_model(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "model.joblib").write_bytes(bz2.compress(pickle.dumps(bytes(8 * MIB))))
        monkeypatch.setattr(content, "INFLATED_BYTES", 2 * MIB)
        found = content.pickled(tmp_path / "model.joblib")
        assert (tmp_path / "model.joblib").stat().st_size < 1000
        assert found is not None
        assert found.size_bytes >= 8 * MIB

    def test_an_unknown_compression_or_an_old_protocol_is_met_generously(self, tmp_path: Path) -> None:
        for name, data in (("lz4", b"\x04\x22\x4d\x18" + bytes(10_000)), ("old", pickle.dumps(list(range(5000)), 0))):
            one = spec(tmp_path / name, "sklearn", "joblib", {"model.joblib": data})
            assert estimate.peak_bytes(one) == estimate.BASE_BYTES["sklearn"] + 30 * len(data)


class TestArchives:
    def test_archives_count_unpacked(self, tmp_path: Path) -> None:
        packed = zipped({"config.json": b"{}", "model.weights.h5": bytes(20 * MIB)})
        assert len(packed) < MIB
        one = spec(tmp_path, "tensorflow", "keras", {"model.keras": packed})
        assert estimate.peak_bytes(one) >= estimate.BASE_BYTES["tensorflow"] + 7.5 * 20 * MIB
        assert estimate.gpu_bytes(one) >= 4 * 20 * MIB

    def test_a_schema_weighs_more_than_arrays(self, tmp_path: Path) -> None:
        arrays = spec(tmp_path / "a", "sklearn", "skops", {"model.skops": zipped({"1.npy": bytes(MIB)})})
        schema = spec(tmp_path / "s", "sklearn", "skops", {"model.skops": zipped({"schema.json": bytes(MIB)})})
        assert estimate.peak_bytes(schema) - estimate.peak_bytes(arrays) == 3 * MIB

    def test_a_directory_larger_than_any_real_one_is_not_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "model.skops"
        path.write_bytes(zipped({f"{number}.npy": b"" for number in range(100)}))
        assert len(content.zip_sizes(path) or ()) == 100
        monkeypatch.setattr(content, "MAX_DIRECTORY_BYTES", 1000)
        assert content.zip_sizes(path) is None

    def test_large_archives_have_their_directory_found(self, tmp_path: Path) -> None:
        """With the records that archives of more than 4 GiB have; forced here for one of a few bytes."""
        path = tmp_path / "model.keras"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model.weights.h5", b"1234")
            archive.start_dir_limit = None  # type: ignore[attr-defined]
        plain = path.read_bytes()
        end = plain.rindex(b"PK\5\6")
        count, size, start = struct.unpack_from("<HII", plain, end + 10)
        record = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, count, count, size, start)
        locator = struct.pack("<IIQI", 0x07064B50, 0, end, 1)
        marked = plain[end : end + 8] + b"\xff" * 12 + plain[end + 20 :]
        path.write_bytes(plain[:end] + record + locator + marked)
        assert content.zip_sizes(path) == {"model.weights.h5": 4}


class TestWeights:
    def test_narrow_numbers_count_as_float32(self, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        path.write_bytes(
            safetensors(a=("F16", [100, 10], 2000), b=("F32", [10], 40), c=("I64", [5], 40), d=("F8", [], 1))
        )
        assert content.safetensors_as_float32(path) == 4000 + 40 + 40 + 4

    def test_shards_are_added_up_and_a_large_tokenizer_counts(self, tmp_path: Path) -> None:
        shard = safetensors(a=("F32", [1000, 1000], 4_000_000))
        files = {f"model-0000{number}-of-00002.safetensors": shard for number in (1, 2)}
        one = spec(tmp_path / "a", "transformers", "safetensors", files)
        weights = int(estimate.WEIGHTS_FACTOR * 8_000_000)
        assert estimate.peak_bytes(one) == estimate.BASE_BYTES["transformers"] + weights
        more = spec(tmp_path / "b", "transformers", "safetensors", {**files, "tokenizer.json": bytes(MIB)})
        assert estimate.peak_bytes(more) - estimate.peak_bytes(one) == 32 * MIB
        assert estimate.gpu_bytes(one) == estimate.GPU_CONTEXT_BYTES + 12_000_000

    def test_a_header_that_promises_too_much_is_not_read(self, tmp_path: Path) -> None:
        files = {"model.safetensors": struct.pack("<Q", 2**40) + bytes(1000)}
        one = spec(tmp_path, "transformers", "safetensors", files)
        assert content.safetensors_as_float32(tmp_path / "model.safetensors") is None
        assert estimate.peak_bytes(one) == estimate.BASE_BYTES["transformers"] + int(estimate.WEIGHTS_FACTOR * 2 * 1008)


class TestProcesses:
    def test_a_cold_spawn_and_a_gpu_take_more(self, tmp_path: Path) -> None:
        one = spec(tmp_path, "transformers", "safetensors", {"model.safetensors": safetensors()})
        forked = estimate.peak_bytes(one)
        assert estimate.peak_bytes(one, forked=False) - forked == 464 * MIB
        assert estimate.peak_bytes(one, on_gpu=True) - forked == estimate.GPU_HOST_BYTES
        assert estimate.gpu_bytes(one) > 512 * MIB

    def test_sklearn_uses_no_gpu(self, tmp_path: Path) -> None:
        one = spec(tmp_path, "sklearn", "pickle", {"model.pkl": pickle.dumps([])})
        assert estimate.gpu_bytes(one) == 0
        assert estimate.peak_bytes(one, on_gpu=True) == estimate.peak_bytes(one)

    def test_a_format_of_another_package_is_met_generously(self, tmp_path: Path) -> None:
        one = spec(tmp_path, "lexicon", "lexicon", {"lexicon.json": bytes(MIB)})
        assert estimate.peak_bytes(one) == (128 + 8) * MIB
        assert estimate.peak_bytes(one, forked=False) == (1024 + 8) * MIB
        assert estimate.gpu_bytes(one) == 0


@pytest.mark.parametrize(("framework", "format_name"), FORMATS)
def test_a_file_that_is_gone_is_no_error(framework: str, format_name: str, tmp_path: Path) -> None:
    one = spec(tmp_path, framework, format_name, {NAMES[format_name]: b"\x80\x04data"})
    (tmp_path / NAMES[format_name]).unlink()
    assert estimate.peak_bytes(one) >= estimate.BASE_BYTES[framework]


STARTS = [b"", b"\x80\x04", b"x\x9c", b"\x1f\x8b\x08\x00", b"BZh9", b"\xfd7zXZ\x00", b"PK\3\4"]
ENDS = [b"", b"PK\5\6" + bytes(18), b"PK\6\7" + bytes(16) + b"PK\5\6" + b"\xff" * 18]


@pytest.mark.parametrize(("framework", "format_name"), FORMATS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(head=st.sampled_from(STARTS), middle=st.binary(max_size=60), tail=st.sampled_from(ENDS))
def test_damaged_files_are_estimated_too(
    framework: str, format_name: str, tmp_path: Path, head: bytes, middle: bytes, tail: bytes
) -> None:
    one = spec(tmp_path, framework, format_name, {NAMES[format_name]: head + middle + tail})
    assert estimate.peak_bytes(one) >= estimate.BASE_BYTES[framework] + one.size_bytes
    assert estimate.gpu_bytes(one) >= 0
