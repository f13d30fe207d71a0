"""Packaging of dinogrl_jax. A wheel has scripts/ and configs/ as folders of the package."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.compile('^__version__ = "(.+)"$', re.MULTILINE)

setup(
    name="dinogrl_jax",
    version=VERSION.search((HERE / "dinogrl_jax/__init__.py").read_text(encoding="utf-8"))[1],
    description="Video-based visible-infrared person re-identification in JAX",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    keywords=[
        "person re-identification",
        "video retrieval",
        "visible-infrared",
        "gait",
        "JAX",
        "Flax",
        "DINOv2",
    ],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    project_urls={"Paper": "https://arxiv.org/abs/2511.04281"},
    packages=[
        *find_packages(include=["dinogrl_jax", "dinogrl_jax.*"]),
        "dinogrl_jax.configs",
        "dinogrl_jax.scripts",
    ],
    package_dir={"dinogrl_jax.configs": "configs", "dinogrl_jax.scripts": "scripts"},
    package_data={
        "dinogrl_jax": ["py.typed"],
        "dinogrl_jax.configs": ["*.pth"],
        "dinogrl_jax.retrieval.server": ["static/*"],
    },
    entry_points={"console_scripts": ["dinogrl_jax = dinogrl_jax.__main__:main"]},
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
        "scipy>=1.13",
        "tensorboardX>=2.6.4",
        "tensorflow-datasets>=4.9.10",
        "threadpoolctl>=3.2",
    ],
    extras_require={
        "test": [
            "av>=15",
            "beartype>=0.22",
            "fastapi>=0.115",
            "hypothesis>=6.100",
            "opencv-python-headless>=4.10,<5",
            "prometheus_client>=0.21",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "python-multipart>=0.0.18",
            "requests>=2.32",
            "ruff>=0.14",
            "setuptools>=77",  # builds the wheel that a test looks into
            "torch==2.13.0",  # compared with, never imported by the package
            "uvicorn>=0.32",
        ],
        "docs": ["furo>=2025.9", "myst-parser>=4", "sphinx>=8.1"],
        "video": ["av>=15"],
        "serve": [
            "av>=15",
            "fastapi>=0.115",
            "prometheus_client>=0.21",
            "python-multipart>=0.0.18",
            "uvicorn>=0.32",
        ],
        "detect": ["av>=15", "opencv-python-headless>=4.10,<5"],  # 5 has no people detector
        # And jax2onnx without what it asks for: an older orbax than ours among it, and unused here.
        "onnx": ["onnx>=1.20", "onnx-ir>=0.2.1", "onnxruntime>=1.24"],
        "cuda": ["jax[cuda13]>=0.10,<0.12"],
        "tpu": ["jax[tpu]>=0.10,<0.12"],
    },
)
