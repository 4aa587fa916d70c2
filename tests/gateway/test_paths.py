from __future__ import annotations

from cvmfs_gw.paths import SystemPaths


def test_the_system() -> None:
    paths = SystemPaths()
    assert paths.access_config == "/etc/cvmfs/gateway/repo.json"
    assert paths.user_config == "/etc/cvmfs/gateway/user.json"
    assert paths.key_file("a.org", "gw") == "/etc/cvmfs/keys/a.org.gw"
    assert paths.server_conf("a.org") == "/etc/cvmfs/repositories.d/a.org/server.conf"
    assert paths.repository_storage("a.org") == "/srv/cvmfs/a.org"
    assert paths.repository_spool("a.org") == "/var/spool/cvmfs/a.org"
    assert paths.work_dir == "/var/lib/cvmfs-gateway"


def test_elsewhere() -> None:
    assert SystemPaths("/elsewhere").spool == "/elsewhere/var/spool/cvmfs"
