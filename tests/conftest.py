"""What all rooms of the tests share: certificates, and which rooms only print their warnings, which are errors elsewhere."""

import subprocess

import pytest

NOT_CLEAN = ("test_r_", "test_rds", "test_spark", "test_jvm", "test_matrix", "test_mlserver", "test_executor_peers")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.name.startswith(NOT_CLEAN):
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """An authority, and a server's and a client's certificate from it: file name to path."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments):
        try:
            subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)
        except FileNotFoundError:
            pytest.skip("openssl is not installed")

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=authority")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for name in ("server", "client"):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names"]
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signing)
    return {p.name: str(p) for p in folder.iterdir()}
