"""Packaging of dinogrl_jax."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="dinogrl_jax",
    version="0.1.0",
    description="Video-based visible-infrared person re-identification in JAX",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["dinogrl_jax", "dinogrl_jax.*"]),
    python_requires=">=3.11,<3.14",
    # jax 0.10 and flax 0.12.8 are the last for Python 3.11; later ones need 3.12. None brings
    # TensorFlow. jax 0.12 does not compile a step for CPUs with `devices/compiling.py`'s options.
    install_requires=[
        "array_record>=0.8",
        "clu>=0.0.12",
        "flatbuffers>=24",
        "flax>=0.12,<0.13",
        "grain>=0.2.18",
        "jax>=0.10,<0.12",
        "jaxtyping>=0.3",
        "ml_collections>=1.1",
        "numpy>=2.0",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12",
        "pillow>=11",
        "safetensors>=0.5",
        "scikit-learn>=1.6",
        "tensorboardX>=2.6.4",
        "tensorflow-datasets>=4.9.10",
    ],
    extras_require={
        "test": [
            "beartype>=0.22",
            "hypothesis>=6.100",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.14",
            "torch==2.13.0",  # compared with, never imported by the package
        ],
        "cuda": ["jax[cuda13]>=0.10,<0.12"],
        "tpu": ["jax[tpu]>=0.10,<0.12"],
    },
)
