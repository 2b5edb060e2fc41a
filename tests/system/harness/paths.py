"""Where things are."""

import os

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
OPENAPI = os.path.join(REPOSITORY, "agent", "api", "openapi.yaml")
TRANSCRIPTS = os.path.join(REPOSITORY, "tests", "system", "transcripts")
BINARY = os.path.abspath(os.environ.get("GHOST_AGENT_BINARY",
                                        os.path.join(REPOSITORY, "build", "dev", "ghost-agent")))
IMAGE_BUILDER = os.path.join(REPOSITORY, "packaging", "build-image.sh")
IMAGE = os.path.abspath(os.environ.get("GHOST_TEST_IMAGE", os.path.join(REPOSITORY, "build", "test-image.qcow2")))
DEBIAN_BUILDER = os.path.join(REPOSITORY, "tests", "system", "build_debian_image.sh")
FAKE_CORE = os.path.abspath(os.environ.get("GHOST_FAKE_CORE",
                                           os.path.join(REPOSITORY, "build", "dev", "tests", "fakes", "fake-core")))
