"""Capture folders: their sizes and limits, and which ones the limits and the regular cleanup delete."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from apps.artifacts import tasks
from apps.artifacts.models import Artifact
from apps.artifacts.services import derived, folders, uploads
from apps.operations.management import cleaning
from apps.tenancy.models import Host
from byteor_cloud.storage import data_folders
from tests.artifacts.incidents import archive, files_of, incident, ingested, journal, kept_folder, upload
from tests.artifacts.test_poison import SPEC_KV
from tests.patience import wait_until
from tests.races import Race
from tests.worlds import World

MIB = 1 << 20


@pytest.fixture
def limited(settings: Any) -> None:
    """Limit each organization to 10 MiB and the host to 160 MiB."""
    settings.CONFIG = dataclasses.replace(settings.CONFIG, max_derived_bytes=10 * MIB)


def capture(mebibytes: int, number: int) -> bytes:
    """Return an incident bundle whose capture folder takes a little more than this many MiB."""
    load = os.urandom(20_000 * mebibytes) + bytes(1_028_000 * mebibytes)
    return archive(files_of(SPEC_KV, load=load, number=b"%d" % number))


def held(world: World) -> int:
    """Return the disk space of the organization's capture folders on this host, in bytes."""
    root = Path(settings.CONFIG.data_dir, "captures", str(world.organization.pk))
    paths = [path for folder in root.glob("*") for path in (folder, *folder.rglob("*"))]
    return sum(4096 * (-(-path.stat().st_size // 4096) or 1) if path.is_file() else 4096 for path in paths)


def counted(world: World) -> int:
    found = Artifact.objects.filter(environment__project__organization=world.organization)
    return sum(found.values_list("derived_bytes", flat=True))


def kept(world: World) -> set[Any]:
    return {each.artifact for each in folders.list_folders() if each.organization == str(world.organization.pk)}


@pytest.mark.django_db
@pytest.mark.usefixtures("limited")
def test_organization_over_limit_keeps_its_most_recently_used_capture_folders(world: World) -> None:
    other = World("other")
    theirs = ingested(other, capture(3, 0))
    first, second, third = (ingested(world, capture(3, number)) for number in range(1, 4))
    assert kept(world) == {first.pk, second.pk, third.pk}
    os.utime(kept_folder(second), (1, 1))  # make it the least recently used folder

    fourth = ingested(world, capture(3, 4))

    assert kept(world) == {first.pk, third.pk, fourth.pk}
    assert kept(other) == {theirs.pk}
    assert 9 * MIB < held(world) == counted(world) <= 10 * MIB
    assert held(other) == counted(other) > 3 * MIB
    second.refresh_from_db()
    assert second.derived_bytes == 0
    # A deleted folder is rebuilt when its capture is read, and its size is stored again.
    assert world.operator.api.get(world.path(rest=f"/artifacts/{second.pk}/files")).status_code == 200
    assert second.pk in kept(world)
    assert held(world) == counted(world) <= 10 * MIB


@pytest.mark.django_db
@pytest.mark.usefixtures("limited")
def test_capture_larger_than_organization_limit_is_rejected(world: World, settings: Any) -> None:
    before = ingested(world, capture(3, 0))

    large = ingested(world, capture(11, 0))

    (reason,) = large.reasons
    assert (large.status, reason["code"], large.derived_bytes) == ("rejected", "too_large", 0)
    assert "the limit for all captures of an organization is 10485760 bytes" in reason["detail"]
    assert kept(world) == {before.pk}
    # The operator lowers the limit.
    derived.delete(before)
    settings.CONFIG = dataclasses.replace(settings.CONFIG, max_derived_bytes=MIB)
    response = world.operator.api.get(world.path(rest=f"/artifacts/{before.pk}/files"))
    assert (response.status_code, "an organization is 1048576 bytes" in response.json()["detail"]) == (409, True)


@pytest.mark.django_db
def test_organization_keeps_at_most_64_capture_folders(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert derived.MAX_FOLDERS == 64
    monkeypatch.setattr(derived, "MAX_FOLDERS", 2)
    theirs = ingested(World("other"), incident(SPEC_KV))

    found = [ingested(world, incident(SPEC_KV, quotes_in=journal([b"%d" % number]))) for number in range(4)]

    assert {each.artifact for each in folders.list_folders()} == {theirs.pk, found[2].pk, found[3].pk}


@pytest.mark.django_db
@pytest.mark.usefixtures("limited")
def test_full_host_deletes_capture_folders_only_of_uploader_or_larger_organization(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host has space for 10 MiB. Three organizations upload captures of 1 and 2 MiB in an arbitrary order."""
    monkeypatch.setattr(derived, "MAX_SHARES", 1)
    worlds = [world, World("second"), World("third")]
    orders = [0, 1, 0, 0, 2, 0, 1, 0, 2, 1, 1, 1, 2, 0]

    for number, turn in enumerate(orders):
        uploader, before = worlds[turn], {each.name: (kept(each), held(each)) for each in worlds}
        ingested(uploader, capture(1 + number % 2, number))
        for each in worlds:
            assert held(each) == counted(each)
            if before[each.name][0] - kept(each) and each is not uploader:
                assert before[each.name][1] > held(uploader)
    assert sum(held(each) for each in worlds) <= 10 * MIB
    assert all(kept(each) for each in worlds)


@pytest.mark.django_db
@pytest.mark.usefixtures("limited")
def test_large_capture_does_not_displace_folders_of_smaller_organizations(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(derived, "MAX_SHARES", 1)
    small = [World(name) for name in ("second", "third", "fourth")]
    theirs = {ingested(each, capture(2, 0)).pk for each in small}

    artifact = ingested(world, capture(4, 0))

    assert (artifact.status, artifact.derived_bytes) == ("verified", 0)
    assert {each.artifact for each in folders.list_folders()} == theirs
    response = world.operator.api.get(world.path(rest=f"/artifacts/{artifact.pk}/files"))
    assert (response.status_code, "Retry-After" in response) == (503, True)
    # A folder that is unused for a day is deleted, which makes space.
    os.utime(folders.list_folders()[0].path, (time.time() - derived.IDLE_S - 1,) * 2)
    derived.delete_unused()
    assert world.operator.api.get(world.path(rest=f"/artifacts/{artifact.pk}/files")).status_code == 200
    assert len(theirs & {each.artifact for each in folders.list_folders()}) == 2


@pytest.mark.django_db
def test_equal_captures_of_two_organizations_are_kept_separately(world: World) -> None:
    other = World("other")
    content = incident(SPEC_KV)
    ours, theirs = ingested(world, content), ingested(other, content)
    assert (held(world), held(other)) == (counted(world), counted(other))
    assert held(world) == held(other) > 0

    Artifact.objects.filter(pk=ours.pk).delete()
    tasks.retain()

    assert (kept(world), kept(other)) == (set(), {theirs.pk})


@pytest.mark.django_db
def test_cleanup_corrects_stored_folder_sizes_and_deletes_unknown_folders(world: World) -> None:
    kept_one, lost = (ingested(world, incident(SPEC_KV, quotes_in=journal([b"%d" % n]))) for n in range(2))
    size = kept_one.derived_bytes
    root = Path(settings.CONFIG.data_dir, "captures")
    old, odd = root / ("0" * 64) / "files", kept_folder(lost).parent / "odd"
    for folder in (old, odd):
        folder.mkdir(parents=True)
    shutil.rmtree(kept_folder(lost))
    Artifact.objects.filter(pk=kept_one.pk).update(derived_bytes=5)
    for name in ("one", "two"):
        Host.objects.create(name=name, data_dir="/var", mode="combined", has_key_files=False)

    derived.delete_unused()

    # With two hosts, the other host may have the lost folder, so its size is not corrected.
    assert [Artifact.objects.get(pk=each.pk).derived_bytes for each in (kept_one, lost)] == [size, size]
    assert [each.artifact for each in folders.list_folders()] == [kept_one.pk]
    assert [folder.exists() for folder in (old.parent, odd)] == [False, False]
    Host.objects.all().delete()
    derived.delete_unused()
    assert [Artifact.objects.get(pk=each.pk).derived_bytes for each in (kept_one, lost)] == [size, 0]
    assert list(Path(settings.CONFIG.data_dir, "scratch").iterdir()) == []


@pytest.mark.usefixtures("limited")
def test_concurrent_ingests_respect_folder_limits_and_store_correct_sizes(
    concurrently: Race, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(derived, "MAX_SHARES", 1)
    worlds = [World("one"), World("two")]
    made = []
    for number, world in itertools.product(range(4), worlds):
        agent, api = world.agent(name=f"agent {number}")
        made.append(upload(api, agent, capture(2, number), kind="incident_bundle").json()["id"])

    assert concurrently(*(lambda key=key: uploads.ingest(key) for key in made)) == [None] * 8

    assert Counter(Artifact.objects.values_list("status", flat=True)) == {"verified": 8}
    assert [held(world) for world in worlds] == [counted(world) for world in worlds]
    assert sum(held(world) for world in worlds) <= 10 * MIB
    assert all(len(kept(world)) == 2 for world in worlds)


def test_reading_capture_during_deletion_of_its_folder_returns_200_or_503(concurrently: Race) -> None:
    world = World("acme")
    artifact = ingested(world, incident(SPEC_KV))
    path = world.path(rest=f"/artifacts/{artifact.pk}/files")
    stop = threading.Event()

    def remove() -> None:
        while not stop.is_set():
            derived.delete(artifact)

    def read() -> set[int]:
        try:
            return {world.operator.api.get(path).status_code for _ in range(2)}
        finally:
            stop.set()

    _, statuses = concurrently(remove, read)

    assert statuses <= {200, 503}
    assert world.operator.api.get(path).status_code == 200
    artifact.refresh_from_db()
    assert held(world) == artifact.derived_bytes > 0


@pytest.mark.django_db(transaction=True)
def test_running_server_regularly_deletes_leftovers_and_folders_of_deleted_artifacts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cleaning.EVERY_S + data_folders.LEFTOVER_S < 3600
    monkeypatch.setattr(cleaning, "EVERY_S", 0.01)
    ingested(world, incident(SPEC_KV))
    old = data_folders.scratch() / "left"

    with cleaning.cleaned():
        old.mkdir()
        os.utime(old, (1, 1))
        Artifact.objects.all().delete()
        wait_until(lambda: not old.exists() and not kept(world))
        scratch = data_folders.scratch()
        scratch.rename(scratch.with_name("aside"))  # a cleanup that fails is repeated
        scratch.write_text("in the way")
        cleaning.clean()
        scratch.unlink()
        old.mkdir(parents=True)
        os.utime(old, (1, 1))
        wait_until(lambda: not old.exists())
