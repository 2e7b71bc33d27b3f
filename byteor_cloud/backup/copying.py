"""Copies blobs from the blob store to a target."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

from byteor_cloud.backup.errors import BackupError
from byteor_cloud.backup.manifest import ListedBlob, blob_path
from byteor_cloud.backup.reading import AlteredError, CheckedReader
from byteor_cloud.backup.targets import Target
from byteor_cloud.errors import NotStored, Unavailable
from byteor_cloud.storage import blobs


def copy_blobs(
    target: Target, wanted: Iterable[ListedBlob], *, on_done: Callable[[ListedBlob, bool], None]
) -> Iterator[ListedBlob]:
    """Copy the wanted blobs, sorted by hash, to the target, except those that it already has with the same size.

    Yields each blob, with its fault if it had to be copied, but the blob store has no valid copy of it. Calls
    ``on_done`` with each blob and whether it had to be copied. Raises BackupError if the target or the blob store
    cannot be used.
    """
    with ThreadPoolExecutor(target.concurrency, "copy") as pool:
        try:
            for folder, group in groupby(wanted, key=lambda blob: blob.sha256[:2]):
                present = target.list_blobs(folder)
                blobs_of_folder = list(group)
                is_new = [present.get(blob.sha256) != blob.size for blob in blobs_of_folder]
                new = pool.map(lambda blob: _copy(target, blob), _chosen(blobs_of_folder, is_new))
                for blob, must_copy in zip(blobs_of_folder, is_new, strict=True):
                    result = next(new) if must_copy else blob
                    on_done(result, must_copy)
                    yield result
        finally:
            pool.shutdown(cancel_futures=True)


def _chosen(listed: list[ListedBlob], is_chosen: list[bool]) -> list[ListedBlob]:
    return [blob for blob, chosen in zip(listed, is_chosen, strict=True) if chosen]


def _copy(target: Target, blob: ListedBlob) -> ListedBlob:
    """Copy one blob and return it, with its fault if the source has no valid copy."""
    try:
        with blobs.read(f"sha256:{blob.sha256}") as source:
            checked = CheckedReader(source, f"the blob {blob.sha256}", blob.sha256)
            target.write(blob_path(blob.sha256), checked)
            return ListedBlob(blob.sha256, checked.result().size)
    except NotStored:
        return ListedBlob(blob.sha256, fault="missing")
    except AlteredError:
        return ListedBlob(blob.sha256, fault="altered")
    except Unavailable as error:
        raise BackupError(f"the blob store cannot be read: {error.detail}") from error
    except OSError as error:
        raise BackupError(f"the blob store cannot be read: {error.strerror or type(error).__name__}") from error
