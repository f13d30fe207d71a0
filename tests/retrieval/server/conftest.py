"""One model, compiled once, and a server of it."""

import pytest
import served

import dinogrl_jax


@pytest.fixture(scope="package")
def model(tmp_path_factory):
    run = served.write_run(tmp_path_factory.mktemp("served") / "run")
    return dinogrl_jax.load(run, batch=served.BATCH)


@pytest.fixture(scope="package")
def clips(tmp_path_factory):
    return served.write_frames(tmp_path_factory.mktemp("served_frames"))


@pytest.fixture(scope="package")
def gallery(model, clips, tmp_path_factory):
    return served.fill(tmp_path_factory.mktemp("served_gallery") / "g", model, clips)


@pytest.fixture(scope="package")
def client(model, gallery):
    with served.served(model, gallery.folder) as client:
        yield client
