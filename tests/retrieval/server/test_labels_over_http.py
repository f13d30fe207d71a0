"""What people say is kept, through restarts, for old galleries, and beside another server."""

import shutil
import sqlite3
import threading

import pytest
import served

from dinogrl_jax.data.readers import manifest
from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.retrieval.server.service import Service
from dinogrl_jax.retrieval.store import database, labels
from dinogrl_jax.retrieval.store.labelled import write_labelled
from dinogrl_jax.training.api.model import load


@pytest.fixture
def copy(gallery, tmp_path):
    """A gallery of one's own."""
    return shutil.copytree(gallery.folder, tmp_path / "g")


def searched(client, clip, modality="infrared") -> str:
    return client.search(served.files_of(clip), modality).json()["query"]


def test_labels_are_kept_shown_and_exported(model, copy, clips, tmp_path):
    with served.served(model, copy) as client:
        query = searched(client, clips[3])
        for place, label in ((3, "same"), (5, "other"), (6, "same"), (7, "same"), (7, None)):
            assert client.say(query, place, label).status_code == 204
        assert client.say(query, 5, "same").status_code == 204  # it replaces the other one
        client.say(query, 5, "other")
        assert "410" in str(client.say("0" * 32, 1, "same").status_code)
        assert "there is no tracklet 12" in served.line(client.say(query, 12, "same"), 404)
        assert "label" in served.line(client.say(query, 1, "perhaps"), 422)
        assert "query" in served.line(client.say("x'; DROP TABLE labels", 1, "same"), 422)
        text = client.ask("PUT", "/labels", {"Content-Type": "text/plain"}, data='{"place": 1}')
        served.line(text, 422)
    with served.served(model, copy) as client:  # of a new process
        found = client.search(served.files_of(clips[3]), "infrared").json()["found"]
        assert {x["place"]: x["label"] for x in found if x["label"]} == {
            3: "same", 5: "other", 6: "same",
        }  # fmt: skip
        listed = client.get("/labels").json()
        assert sorted((x["place"], x["label"]) for x in listed) == [
            (3, "same"), (5, "other"), (6, "same"),
        ]  # fmt: skip
        other = client.search(served.files_of(clips[3]), "visible").json()
        assert other["query"] != query and not any(x["label"] for x in other["found"])

    out = tmp_path / "out" / "labels.jsonl"
    out.parent.mkdir()
    made = write_labelled(copy, out)
    assert (made.tracklets, made.people, made.left_out) == (3, 1, ())
    train, test = manifest.read_splits(str(out))
    assert not test and {x.identity for x in train} == {"person_3"}
    assert [x.modality for x in train] == ["infrared", "visible", "infrared"]
    assert [str(x) for x in train[0].frames] == [str(x) for x in clips[3]]
    same = model.embed([list(map(str, train[2].frames))], "infrared")
    assert (same == model.embed([clips[3]], "infrared")).all()  # nothing of the query was lost


def test_a_query_that_is_forgotten(model, copy, clips):
    with served.served(model, copy) as client:
        query = searched(client, clips[3])
        client.service.recent._queries.clear()
        assert "search for it again" in served.line(client.say(query, 3, "same"), 410)
        searched(client, clips[3])
        assert client.say(query, 3, "same").status_code == 204
        client.service.recent._queries.clear()
        assert client.say(query, 4, "other").status_code == 204  # its frames are stored by now


def test_two_servers_on_one_gallery(model, copy, clips):
    with served.served(model, copy) as first, served.served(model, copy) as second:
        queries = [searched(x, clips[3]) for x in (first, second)]
        assert queries[0] == queries[1]
        work = [
            threading.Thread(target=client.say, args=(queries[0], place, "same"))
            for place in range(8)
            for client in (first, second)
        ]
        for one in work:
            one.start()
        for one in work:
            one.join()
        listed = second.get("/labels").json()
        assert sorted(x["place"] for x in listed) == list(range(8))


def test_tracklets_are_added_while_it_serves(model, copy, clips):
    gallery = served.Gallery.open(copy, model)
    with served.served(model, copy) as client:
        query = searched(client, clips[3])
        client.say(query, 3, "same")
        gallery.add(model.embed([clips[0][:1]], "visible"), modality="visible", name=["new"])
        found = client.search(served.files_of(clips[3]), "infrared", k=50).json()
        assert found["tracklets"] == len(found["found"]) == served.TRACKLETS + 1
        assert client.say(query, served.TRACKLETS, "other").status_code == 204


def test_a_full_disk_and_a_gallery_that_another_writes(model, copy, clips, monkeypatch):
    with served.served(model, copy) as client:
        query = searched(client, clips[3])
        connect = sqlite3.connect

        def small(*words, **options):
            base = connect(*words, **options)
            (pages,) = base.execute("PRAGMA page_count").fetchone()
            base.execute(f"PRAGMA max_page_count = {pages}")
            return base

        monkeypatch.setattr(database.sqlite3, "connect", small)
        assert "disk is full" in served.line(client.say(query, 3, "same"), 507)
        monkeypatch.setattr(database.sqlite3, "connect", connect)
        monkeypatch.setattr(database, "PATIENCE", 0.2)
        with connect(copy / database.FILE, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            assert "database is locked" in served.line(client.say(query, 3, "same"), 503)
            assert searched(client, clips[4])  # searches go on
            other.execute("ROLLBACK")
        other.close()
        assert client.get("/labels").json() == []
        assert client.say(query, 3, "same").status_code == 204


def test_a_gallery_that_becomes_another_models_or_is_damaged(model, copy, clips, tmp_path):
    other = load(served.write_run(tmp_path / "run"), batch=served.BATCH)
    strange = other._replace(source=other.source._replace(fingerprint="another", title="another"))
    with served.served(model, copy) as client:
        shutil.rmtree(copy)
        text = served.line(client.search(served.files_of(clips[3])), 503)
        assert "holds no tracklets yet" in text
        strange_gallery = served.Gallery.open(copy, strange)
        strange_gallery.add(other.embed([clips[0]]), modality="visible", name=["x"])
        text = served.line(client.search(served.files_of(clips[3])), 503)
        assert "of another model" in text
        (copy / database.FILE).write_bytes(b"no database" * 999)
        assert "cannot be read" in served.line(client.search(served.files_of(clips[3])), 503)
        assert "cannot be read" in served.line(client.get("/health"), 503)


def test_another_models_gallery_is_refused_at_the_start(model, gallery):
    strange = model._replace(source=model.source._replace(fingerprint="another"))
    with pytest.raises(InputError, match="descriptors of another model"):
        Service(strange, gallery.folder, served.LIMITS)


def test_labels_of_a_gallery_stay_readable_by_the_library(model, copy, clips):
    labels.write_label(copy, "q", "visible", [b"png"], 3, "same")
    gallery = served.Gallery.open(copy, model)
    assert len(gallery.search(model.embed([clips[0]])[0], 5)) == 5
