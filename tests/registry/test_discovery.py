"""What discovery writes into the registry, and what it reports."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext

from modelhub.registry import discovery
from modelhub.registry.choices import Status
from modelhub.registry.discovery import DiscoveryFailed, DiscoveryReport, discover
from modelhub.registry.models import Alias, DiscoveryRun, Model, ModelVersion
from tests.registry.conftest import Store

Discovered = Callable[..., DiscoveryReport]
pytestmark = pytest.mark.django_db


def version(model_id: str) -> ModelVersion:
    return ModelVersion.objects.select_related("lineage").get(model_id=model_id)


def mark(model_id: str, **values: Any) -> None:
    ModelVersion.objects.filter(model_id=model_id).update(**values)


def reason(report: DiscoveryReport, path: str) -> str:
    return dict(report.refused)[path]


class TestNew:
    def test_a_directory_becomes_a_model_of_its_lineage(self, store: Store, discovered: Discovered) -> None:
        metadata = {
            "name": "Sentiment Analysis Model",
            "version": "1.2.0",
            "description": "Moods of e-mails.",
            "created_at": "2026-01-31T12:00:00Z",
            "performance_metrics": {"accuracy": 0.92, "latency_ms": 45},
            "team": "mail",
        }
        store.add("sentiment/sentiment-model-v1", {"model.pkl": b"p" * 100}, metadata, {"threshold": 0.5})
        assert discovered().new == ["sentiment-model-v1"]
        found = version("sentiment-model-v1")
        assert (found.lineage.name, found.lineage.type, found.version) == ("sentiment-model", "sentiment", "1.2.0")
        assert found.lineage.description == "Moods of e-mails."
        assert (found.name, found.framework, found.artifact_format) == ("Sentiment Analysis Model", "sklearn", "pickle")
        assert found.path == "sentiment/sentiment-model-v1"
        assert found.size_bytes == sum(file.stat().st_size for file in (store.root / found.path).iterdir())
        assert found.created_at.isoformat() == "2026-01-31T12:00:00+00:00"
        assert found.performance_metrics == {"accuracy": 0.92, "latency_ms": 45}
        assert found.metadata == metadata
        assert found.config == {"threshold": 0.5}
        assert len(found.digest) == 64
        assert not found.is_approved
        assert [file["path"] for file in found.manifest] == ["config.json", "metadata.json", "model.pkl"]

    def test_each_framework_is_detected_from_its_files(self, store: Store, discovered: Discovered) -> None:
        bert = {"model_type": "bert"}
        store.add("topic/bert-v1", {"model.safetensors": b"s", "tokenizer.json": b"{}"}, config=bert)
        store.add("topic/old-bert-v1", {"pytorch_model.bin": b"s"}, config=bert)
        store.add("topic/cnn-v1", {"model.keras": b"k"})
        store.add("topic/graph-v1", {"saved/saved_model.pb": b"g"})
        discovered()
        found = dict(ModelVersion.objects.values_list("model_id", "artifact_format"))
        assert found == {
            "bert-v1": "safetensors",
            "old-bert-v1": "torch-weights",
            "cnn-v1": "keras",
            "graph-v1": "saved-model",
        }

    def test_versions_of_one_lineage_share_it(self, store: Store, discovered: Discovered) -> None:
        store.add("topic/mail-v1.0")
        store.add("topic/mail_v2.0")
        discovered()
        assert list(Model.objects.get().versions.values_list("version", flat=True)) == ["1.0", "2.0"]

    def test_names_in_any_script_are_kept(self, store: Store, discovered: Discovered) -> None:
        store.add("sentiment/情感-v1", {"model.skops": b"x", "词表.txt": b"y"})
        discovered()
        assert version("情感-v1").lineage.name == "情感"

    def test_an_unknown_folder_gives_type_other_and_a_note(self, store: Store, discovered: Discovered) -> None:
        store.add("fraud/ring-v1")
        report = discovered()
        assert version("ring-v1").type == "other"
        assert "fraud names no known type" in report.notes[0]

    def test_stray_files_and_hidden_folders_are_passed_over(self, store: Store, discovered: Discovered) -> None:
        store.add("topic/mail-v1")
        for path in (".git/objects", "topic/.copying"):
            (store.root / path).mkdir(parents=True)
        for path in ("README.md", "registry.json", "topic/README"):
            (store.root / path).write_text("{}")
        (store.root / "nowhere").symlink_to("missing")
        (store.root / "self").symlink_to("self")
        report = discovered()
        assert report.counts | {"new": 1} == {**dict.fromkeys(report.counts, 0), "new": 1}
        assert report.notes == []


class TestRefused:
    @pytest.mark.parametrize(
        ("files", "metadata", "expected"),
        [
            ({"notes.txt": b"x"}, None, "No framework knows its files"),
            (None, "{", "metadata.json is not JSON"),
            (None, {"version": 2}, '"version" must be a string'),
            (None, "x" * 10, "metadata.json is not JSON"),
        ],
    )
    def test_one_bad_directory_does_not_stop_the_others(
        self, store: Store, discovered: Discovered, files: Any, metadata: Any, expected: str
    ) -> None:
        store.add("topic/bad-v1", files, metadata)
        store.add("topic/good-v1")
        report = discovered()
        assert report.new == ["good-v1"]
        assert expected in reason(report, "topic/bad-v1")
        assert not ModelVersion.objects.filter(model_id="bad-v1").exists()

    def test_a_metadata_file_past_the_limit_is_refused(
        self, store: Store, discovered: Discovered, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("modelhub.registry.metadata.MAX_JSON_BYTES", 100)
        store.add("topic/mail-v1", metadata={"x": "y" * 100})
        assert "more than 100 bytes" in reason(discovered(), "topic/mail-v1")

    def test_an_empty_directory_is_refused(self, store: Store, discovered: Discovered) -> None:
        (store.root / "topic/mail-v1").mkdir(parents=True)
        assert "empty" in reason(discovered(), "topic/mail-v1")

    def test_links_to_directories_are_refused(self, store: Store, discovered: Discovered, tmp_path: Any) -> None:
        directory = store.add("topic/mail-v1")
        (store.root / "topic/latest").symlink_to(directory)
        (tmp_path / "outside/other-v1").mkdir(parents=True)
        (store.root / "intent").symlink_to(tmp_path / "outside")
        report = discovered()
        assert report.new == ["mail-v1"]
        assert "symbolic link" in reason(report, "topic/latest")
        assert "symbolic link" in reason(report, "intent")

    @pytest.mark.parametrize("name", ["health", "metrics", "discover", "optimize-memory", "x" * 201, "a\nb"])
    def test_names_that_cannot_be_an_id_are_refused(self, store: Store, discovered: Discovered, name: str) -> None:
        store.add(f"topic/{name}")
        report = discovered()
        assert report.new == []
        assert len(report.refused) == 1

    def test_a_model_that_lies_directly_in_the_store_is_told_where_it_belongs(
        self, store: Store, discovered: Discovered
    ) -> None:
        store.add("mail-v1", metadata={})
        assert "move it to <type>/mail-v1/" in reason(discovered(), "mail-v1")

    def test_the_same_name_in_two_folders_is_one_model(self, store: Store, discovered: Discovered) -> None:
        store.add("topic/mail-v1")
        discovered()
        store.add("intent/mail-v1")
        report = discovered()
        assert "taken by topic/mail-v1" in reason(report, "intent/mail-v1")
        assert version("mail-v1").path == "topic/mail-v1"

    def test_a_copy_elsewhere_does_not_replace_a_model_that_is_refused_now(
        self, store: Store, discovered: Discovered
    ) -> None:
        store.add("topic/mail-v1")
        discovered()
        store.add("topic/mail-v1", metadata="{")
        store.add("intent/mail-v1")
        report = discovered()
        assert {path for path, _ in report.refused} == {"topic/mail-v1", "intent/mail-v1"}
        assert version("mail-v1").path == "topic/mail-v1"

    def test_a_lineage_has_one_type(self, store: Store, discovered: Discovered) -> None:
        store.add("topic/mail-v1")
        discovered()
        store.add("intent/mail-v2")
        assert "of type topic" in reason(discovered(), "intent/mail-v2")

    def test_a_version_of_a_lineage_is_one_directory(self, store: Store, discovered: Discovered) -> None:
        store.add("topic/mail-v2", metadata={"version": "1"})
        discovered()
        store.add("topic/mail-v1")
        assert "is mail-v2 already" in reason(discovered(), "topic/mail-v1")

    def test_a_version_of_a_gone_directory_stays_taken(self, store: Store, discovered: Discovered) -> None:
        directory = store.add("topic/mail-v1")
        discovered()
        directory.rename(store.root / "topic/mail_v1")
        assert "delete that model in the admin" in reason(discovered(), "topic/mail_v1")

    def test_a_registered_model_keeps_its_row_with_the_reason(self, store: Store, discovered: Discovered) -> None:
        directory = store.add("topic/mail-v1")
        discovered()
        digest = version("mail-v1").digest
        (directory / "metadata.json").write_text("{")
        report = discovered()
        assert (report.gone, report.changed) == ([], [])
        assert "metadata.json is not JSON" in version("mail-v1").refusal
        assert version("mail-v1").digest == digest
        (directory / "metadata.json").unlink()
        report = discovered()
        assert version("mail-v1").refusal == ""
        assert report.unchanged == ["mail-v1"]

    def test_models_of_a_folder_that_became_a_link_are_refused_not_gone(
        self, store: Store, discovered: Discovered, tmp_path: Any
    ) -> None:
        store.add("topic/mail-v1")
        discovered()
        (store.root / "topic").rename(tmp_path / "topic")
        (store.root / "topic").symlink_to(tmp_path / "topic")
        report = discovered()
        assert report.gone == []
        assert "symbolic link" in reason(report, "topic/mail-v1")

    def test_a_file_that_changes_while_it_is_read_refuses_its_model_only(
        self, store: Store, discovered: Discovered, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.add("topic/good-v1")
        directory = store.add("topic/mail-v1", {"model.skops": bytes(5 << 20)})
        readv = os.readv

        def writing_too(descriptor: int, buffers: Any) -> int:
            if os.fstat(descriptor).st_size >= 5 << 20:
                with open(directory / "model.skops", "ab") as file:
                    file.write(b"more")
            return readv(descriptor, buffers)

        monkeypatch.setattr(os, "readv", writing_too)
        report = discovered()
        assert report.new == ["good-v1"]
        assert "changed while it was read" in reason(report, "topic/mail-v1")


class TestAgain:
    def test_a_second_run_changes_nothing(self, store: Store, discovered: Discovered) -> None:
        store.add("topic/mail-v1", metadata={"labels": ["a", "b"]}, config={"x": 1e23, "y": [1.0, -0.0]})
        store.add("fraud/ring-v1")
        discovered()
        before = list(ModelVersion.objects.values())
        report = discovered()
        assert report.unchanged == ["ring-v1", "mail-v1"]
        assert report.counts | {"unchanged": 0} == dict.fromkeys(report.counts, 0)
        after = list(ModelVersion.objects.values())
        assert [row | {"discovered_at": 0} for row in after] == [row | {"discovered_at": 0} for row in before]

    def test_unchanged_files_are_not_read_again(
        self, store: Store, discovered: Discovered, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        directory = store.add("topic/mail-v1", {"model.skops": b"x", "vocabulary.txt": b"y"}, metadata={})
        discovered()
        read = []
        hash_file = discovery.scan_store.__globals__["hash_file"]

        def counting(root: Any, path: str, file: Any, *args: Any) -> Any:
            read.append(file.path)
            return hash_file(root, path, file, *args)

        monkeypatch.setitem(discovery.scan_store.__globals__, "hash_file", counting)
        discovered()
        assert read == []
        (directory / "vocabulary.txt").write_bytes(b"z")
        assert discovered().changed == ["mail-v1"]
        assert read == ["vocabulary.txt"]

    def test_new_times_alone_are_no_change_of_the_bytes(self, store: Store, discovered: Discovered) -> None:
        directory = store.add("topic/mail-v1")
        discovered()
        mark("mail-v1", approved_digest=version("mail-v1").digest)
        os.utime(directory / "model.skops")
        assert discovered().unchanged == ["mail-v1"]
        assert version("mail-v1").is_approved
        assert version("mail-v1").manifest[0]["mtime_ns"] == (directory / "model.skops").stat().st_mtime_ns

    def test_changed_bytes_lose_their_approval(self, store: Store, discovered: Discovered) -> None:
        directory = store.add("topic/mail-v1", {"model.pkl": b"1"})
        discovered()
        mark("mail-v1", approved_digest=version("mail-v1").digest)
        (directory / "model.pkl").write_bytes(b"2")
        assert discovered().changed == ["mail-v1"]
        found = version("mail-v1")
        assert not found.is_approved
        assert found.changed_at is not None

    def test_bytes_that_changed_under_a_loaded_model_are_reported_until_it_is_loaded_again(
        self, store: Store, discovered: Discovered
    ) -> None:
        directory = store.add("topic/mail-v1")
        discovered()
        mark("mail-v1", status=Status.LOADED, loaded_digest=version("mail-v1").digest, pid=42, usage_count=7)
        (directory / "model.skops").write_bytes(b"other")
        report = discovered()
        assert (report.changed, report.stale_in_memory) == (["mail-v1"], ["mail-v1"])
        assert discovered().stale_in_memory == ["mail-v1"]
        found = version("mail-v1")
        assert (found.status, found.pid, found.usage_count) == (Status.LOADED, 42, 7)
        assert found.is_stale_in_memory
        mark("mail-v1", loaded_digest=found.digest)
        assert discovered().stale_in_memory == []

    def test_gone_and_returned(self, store: Store, discovered: Discovered) -> None:
        directory = store.add("topic/mail-v1")
        discovered()
        hidden = directory.rename(store.root / "topic/.away")
        assert discovered().gone == ["mail-v1"]
        since = version("mail-v1").missing_since
        assert since is not None
        assert discovered().gone == []
        assert version("mail-v1").missing_since == since
        hidden.rename(directory)
        report = discovered()
        assert (report.returned, report.unchanged) == (["mail-v1"], ["mail-v1"])
        assert version("mail-v1").missing_since is None

    def test_a_moved_directory_stays_the_same_model(self, store: Store, discovered: Discovered) -> None:
        directory = store.add("topic/mail-v1")
        discovered()
        mark("mail-v1", usage_count=7)
        (store.root / "intent").mkdir()
        directory.rename(store.root / "intent/mail-v1")
        report = discovered()
        assert "moved from topic/mail-v1 to intent/mail-v1" in report.notes[0]
        found = version("mail-v1")
        assert (found.path, found.type, found.usage_count) == ("intent/mail-v1", "intent", 7)

    def test_two_directories_may_swap_their_versions(self, store: Store, discovered: Discovered) -> None:
        for one, two in (("1", "2"), ("2", "1")):
            store.add("topic/mail-a", metadata={"lineage": "mail", "version": one})
            store.add("topic/mail-b", metadata={"lineage": "mail", "version": two})
            assert discovered().refused == []
        assert (version("mail-a").version, version("mail-b").version) == ("2", "1")

    def test_a_version_passes_to_a_newcomer_in_one_run(self, store: Store, discovered: Discovered) -> None:
        store.add("topic/mail-a", metadata={"lineage": "mail", "version": "1"})
        discovered()
        store.add("topic/mail-a", metadata={"lineage": "mail", "version": "2"})
        store.add("topic/mail-b", metadata={"lineage": "mail", "version": "1"})
        assert discovered().new == ["mail-b"]

    def test_a_version_that_left_its_lineage_takes_no_name_of_it_along(
        self, store: Store, discovered: Discovered
    ) -> None:
        store.add("topic/mail-a", metadata={"lineage": "mail", "version": "1"})
        store.add("topic/mail-b", metadata={"lineage": "mail", "version": "2"})
        discovered()
        for name, model_id in (("live", "mail-a"), ("candidate", "mail-b")):
            found = version(model_id)
            Alias.objects.create(lineage=found.lineage, name=name, version=found, set_by="ada")
        store.add("topic/mail-a", metadata={"lineage": "post", "version": "1"})
        report = discovered()
        assert [str(alias) for alias in Alias.objects.all()] == ["mail/candidate"]
        assert any("the name live of mail" in note for note in report.notes), report.notes
        assert not any("name" in note for note in discovered().notes)

    def test_the_history_says_which_names_discovery_removed(self, store: Store, discovered: Discovered) -> None:
        for number in (1, 2, 3):
            store.add(f"topic/mail-{number}", metadata={"lineage": "mail", "version": str(number)})
        discovered()
        for name, model_id in (("live", "mail-1"), ("candidate", "mail-2"), ("fallback", "mail-3")):
            found = version(model_id)
            Alias.objects.create(lineage=found.lineage, name=name, version=found, set_by="ada")
        Model.objects.filter(name="mail").update(candidate_percent=20.0, shadow=True)
        for number in (1, 2):
            store.add(f"topic/mail-{number}", metadata={"lineage": "post", "version": str(number)})
        discovered()
        mail = Model.objects.get(name="mail")
        assert (mail.candidate_percent, mail.shadow) == (0.0, False)
        assert mail.traffic_changed_at is not None
        removed = mail.changes.filter(kind="remove").order_by("alias")
        assert list(removed.values_list("alias", "previous__model_id", "details", "reason", "actor")) == [
            (
                name,
                model_id,
                {"version_id": None, "previous_id": model_id},
                f"{model_id} is of the lineage post now",
                "test",
            )
            for name, model_id in (("candidate", "mail-2"), ("live", "mail-1"))
        ]
        traffic = mail.changes.get(kind="traffic")
        assert (traffic.details, traffic.actor) == ({"candidate_percent": 0.0, "shadow": False}, "test")
        discovered()
        assert mail.changes.count() == 3

    def test_a_lineages_description_belongs_to_people_after_the_first_time(
        self, store: Store, discovered: Discovered
    ) -> None:
        store.add("topic/mail-v1", metadata={"description": "first"})
        discovered()
        Model.objects.update(description="by hand")
        store.add("topic/mail-v1", metadata={"description": "second"})
        discovered()
        assert Model.objects.get().description == "by hand"


class TestRuns:
    def test_each_run_leaves_a_row(self, store: Store, discovered: Discovered) -> None:
        store.add("topic/mail-v1")
        store.add("topic/bad-v1", metadata="{")
        discovered()
        run = DiscoveryRun.objects.get()
        assert (run.actor, run.outcome, run.summary) == ("test", "some refused", "1 new, 1 refused")
        assert run.finished_at >= run.started_at
        assert run.report["refused"][0]["path"] == "topic/bad-v1"

    def test_old_runs_are_forgotten(
        self, store: Store, discovered: Discovered, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(discovery, "KEPT_RUNS", 3)
        for _ in range(5):
            discovered()
        assert DiscoveryRun.objects.count() == 3

    def test_a_store_that_is_not_there_marks_nothing_gone(self, store: Store, discovered: Discovered) -> None:
        store.add("topic/mail-v1")
        discovered()
        shutil.rmtree(store.root)
        with pytest.raises(DiscoveryFailed, match=r"Cannot list the store .*: No such file or directory; create it"):
            discovered()
        assert version("mail-v1").missing_since is None
        assert DiscoveryRun.objects.first().outcome == "failed"

    def test_progress_reaches_the_sum_of_bytes(self, store: Store, discovered: Discovered) -> None:
        store.add("topic/mail-v1", {"model.skops": bytes(3_000_000)})
        seen: list[tuple[int, int]] = []
        discovered(progress=lambda done, total: seen.append((done, total)))
        assert seen[-1] == (3_000_000, 3_000_000)

    def test_a_progress_that_fails_stops_the_run_and_writes_nothing(self, store: Store, discovered: Discovered) -> None:
        """As Ctrl-C does."""

        def interrupt(done: int, total: int) -> None:
            raise KeyboardInterrupt

        store.add("topic/mail-v1", {f"{number}.bin": bytes(2_000_000) for number in range(20)})
        with pytest.raises(KeyboardInterrupt):
            discovered(progress=interrupt)
        assert not ModelVersion.objects.exists()
        assert DiscoveryRun.objects.get().error == "KeyboardInterrupt"

    def test_the_number_of_queries_does_not_grow_with_the_models(self, store: Store, discovered: Discovered) -> None:
        counts = []
        for total in (50, 500):
            for number in range(total):
                store.add(f"topic/mail{number}-v1", {"model.skops": b"x"})
            discovered()
            with CaptureQueriesContext(
                connection,
            ) as queries:
                assert len(discovered().unchanged) == total
            counts.append(len(queries))
        assert counts[0] == counts[1] < 20, [query["sql"][:80] for query in queries]

    def test_a_big_tree_gives_the_same_digest_as_one_thread(
        self, store: Store, discovered: Discovered, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        parts = {f"shard-{number:03}/part.bin": bytes([number]) * 50_000 for number in range(200)}
        store.add("topic/big-v1", {"model.skops": b"x", **parts})
        discovered()
        digest = version("big-v1").digest
        ModelVersion.objects.all().delete()
        monkeypatch.setitem(discovery.scan_store.__globals__, "HASH_THREADS", 1)
        discovered()
        assert version("big-v1").digest == digest
        assert version("big-v1").size_bytes == 200 * 50_000 + 1


@pytest.mark.django_db(transaction=True)
class TestTogether:
    def test_two_runs_at_once_do_not_interleave(self, store: Store) -> None:
        for number in range(30):
            store.add(f"topic/mail{number}-v1")
        reports: list[DiscoveryReport] = []
        gate = threading.Barrier(4)

        def run(number: int) -> None:
            try:
                gate.wait()
                reports.append(discover(actor=f"thread {number}"))
            finally:
                connections.close_all()

        threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(len(report.new) for report in reports) == [0, 0, 0, 30]
        runs = DiscoveryRun.objects.order_by("started_at").values_list("started_at", "finished_at")
        assert all(one[1] <= two[0] for one, two in pairwise(runs))

    def test_it_does_not_wait_for_another_run_for_ever(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(discovery, "LOCK_WAIT_SECONDS", 1)
        entered, leave = threading.Event(), threading.Event()

        def hold(done: int, total: int) -> None:
            entered.set()
            leave.wait(30)

        def first() -> None:
            try:
                discover(actor="first", progress=hold)
            finally:
                connections.close_all()

        store.add("topic/mail-v1")
        thread = threading.Thread(target=first)
        thread.start()
        try:
            assert entered.wait(30)
            with pytest.raises(DiscoveryFailed, match="Another discovery has run for more than 1 seconds"):
                discover(actor="second")
        finally:
            leave.set()
            thread.join(30)
        assert discover(actor="second").unchanged == ["mail-v1"]

    def test_what_is_reported_meanwhile_is_not_overwritten(self, store: Store) -> None:
        """Discovery read the row before; loaderd's reporter wrote since."""
        directory = store.add("topic/mail-v1")
        discover(actor="test")
        (directory / "model.skops").write_bytes(b"other")

        def report(done: int, total: int) -> None:
            mark("mail-v1", status=Status.LOADED, load_count=3, status_reason="loaded", threads=2)

        discover(actor="test", progress=report)
        found = version("mail-v1")
        assert (found.status, found.load_count, found.threads) == (Status.LOADED, 3, 2)
        assert found.changed_at is not None
