"""Detection of network filesystems."""

from __future__ import annotations

from pathlib import Path

NETWORK = frozenset(
    ["9p", "afpfs", "afs", "beegfs", "ceph", "cifs", "davfs", "gpfs", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4"]
    + ["orangefs", "smb3", "smbfs", "webdav"]
    + [f"fuse.{name}" for name in ("ceph", "davfs2", "glusterfs", "rclone", "s3fs", "sshfs")]
)
"""The names under which systems mount other machines' disks (and 9p, through which WSL shows those of Windows)."""


def network_filesystem(path: Path) -> str | None:
    """Return the kind of network filesystem that ``path`` lies on; None for a local or unknown one."""
    import psutil

    place = path.absolute()
    try:
        place = place.resolve()
        mounts = [(Path(part.mountpoint), part.fstype.lower()) for part in psutil.disk_partitions(all=True)]
    except (OSError, RuntimeError):  # no /proc, or links in a circle
        return None
    over = [mount for mount in mounts if mount[0] in (place, *place.parents)]
    if not over:
        return None
    # Of mounts at one place the last one hides the others.
    kind = max(enumerate(over), key=lambda item: (len(item[1][0].parts), item[0]))[1][1]
    return kind if kind in NETWORK else None
