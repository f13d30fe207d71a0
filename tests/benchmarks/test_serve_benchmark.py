"""The benchmark of the server, in very small."""

import json
import sys

import serve
import served


def test_its_table(monkeypatch, capsys, tmp_path):
    run, clips = served.write_run(tmp_path / "run"), served.write_frames(tmp_path / "frames")
    lines = [
        {"frames": list(map(str, clip)), "identity": i % 3, "modality": "infrared"}
        for i, clip in enumerate(clips)
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    words = ["--checkpoint", run, "--tracklets", tmp_path / "m.jsonl", "--count", 30]
    words += ["--searches", 3, "--clients", 2, "--folder", tmp_path]
    monkeypatch.setattr(sys, "argv", ["serve.py", *map(str, words)])
    serve.main()
    rows = [x for x in capsys.readouterr().out.splitlines() if x.endswith("| 100 % |")]
    assert [x.split()[1] for x in rows] == ["1", "2"]
    assert sorted(x.name for x in tmp_path.iterdir()) == ["frames", "m.jsonl", "run"]
