"""Training and publishing, as the verbs ``train``, ``store`` and ``run`` share them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable

from aif import __version__
from aif.authoring.publication import (
    Publisher,
    StoredModel,
    check_model_fits_contract,
    load_model,
    packaged_models,
    save_model,
)
from aif.cli._wiring import PACKAGE, SHIPPED_AIMS, VENDOR, Home, now
from aif.config import Catalogue
from aif.trusted.content_keys import PublisherVault, SiteVault
from aif.trusted.state import write_atomically
from store.keys import RoleKeys
from store.release import Release
from store.repository import Repository

Progress = Callable[[str, float], None]

RECIPE_FOLDERS = ("motion_features", "gesture_classifier", "motion_anomaly")
RECORDING = "imu_held_out"
HELD_OUT_WINDOWS = 600
"""Windows of the run's recording: enough to resolve 0.002, few enough to replay in half a minute."""


def open_or_create_store(home: Home) -> Repository:
    """The site's store; made, with new keys, when there is none."""
    if (home.store / "metadata" / "timestamp.json").is_file():
        return Repository.open(home.store, RoleKeys.load(home.store_keys))
    keys = RoleKeys.create(home.store_keys, [VENDOR])
    return Repository.create(home.store, keys, now=now())


def recipe_digest() -> str:
    """Changes when the code that trains the models does."""
    digest = hashlib.sha256()
    for folder in (PACKAGE / "authoring", *(SHIPPED_AIMS / name for name in RECIPE_FOLDERS)):
        for path in sorted(folder.glob("*.py")):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def train_motion_models(home: Home, progress: Progress, *, force: bool = False) -> list[StoredModel]:
    """The two motion models and the recording of the people they have never seen; trained once.

    Raises:
        ConversionRefused: an int8 model lost too much against its float network.
    """
    marker = home.models / "recipe.json"
    names = ("gesture_classifier", "motion_anomaly")
    if not force and marker.is_file() and json.loads(marker.read_text()) == {"recipe": recipe_digest()}:
        return [load_model(home.models, name) for name in names]
    from aif.authoring.datasets import watch_recordings
    from aif.authoring.recording import write_recording
    from aims.gesture_classifier.train import train as train_classifier
    from aims.motion_anomaly.train import train as train_anomaly
    from aims.motion_features.corpus import motion_corpus

    home.models.mkdir(parents=True, exist_ok=True)
    home.recordings.mkdir(parents=True, exist_ok=True)
    marker.unlink(missing_ok=True)
    progress("reading the motion data", 0.0)
    corpus = motion_corpus(watch_recordings(), progress=progress)
    trained = [train_classifier(corpus, progress=progress), train_anomaly(corpus, progress=progress)]
    stored = [save_model(home.models, model) for model in trained]
    write_recording(home.recordings / f"{RECORDING}.npz", corpus.held_out.thinned(HELD_OUT_WINDOWS))
    write_atomically(marker, json.dumps({"recipe": recipe_digest()}).encode())
    return stored


def open_publisher(home: Home) -> Publisher:
    """The shipped publisher's hand on the store of a home folder."""
    repository = open_or_create_store(home)
    return Publisher(repository, VENDOR, now, PublisherVault(home.store_keys, os.urandom))


def publish_everything(home: Home, catalogue: Catalogue, *, plain: bool = False) -> list[Release]:
    """Runtime, AIM packages, their models and trained models; what is there already is not published again.

    The content keys go to the site of the same home folder; other sites ask for theirs.
    """
    repository = open_or_create_store(home)
    repository.renew(now=now())
    publisher = open_publisher(home)
    releases = [publisher.runtime(PACKAGE, __version__)]
    releases += [
        publisher.aim(contract, catalogue.folder(reference)) for reference, contract in catalogue.items()
    ]
    for description in sorted(home.models.glob("*.model.json")):
        model = load_model(home.models, description.name.removesuffix(".model.json"))
        for contract in catalogue.values():
            check_model_fits_contract(model, contract)
        releases.append(publisher.model(model, plain=plain))
    for reference, contract in catalogue.items():
        models = packaged_models(contract, catalogue.folder(reference))
        releases += [publisher.model(model, plain=plain) for model in models]
    hand_over_here(home)
    return releases


def hand_over_here(home: Home) -> list[str]:
    """Give the publisher's content keys to the site of the same home folder; returns what was new to it."""
    vault = PublisherVault(home.store_keys, os.urandom)
    site = SiteVault(home.site, os.urandom)
    return site.take(vault.hand_over(site.public_key))
