"""An experiment's log of many rows, analysed in one pass, beside DuckDB making the same units.

    python benches/analysis.py target/release/refrain --rows 100000000 [--scratch DIR] [--keep]

Writes a log with DuckDB (one exposure in five repeated as a retry would, a fifth as many outcomes), then
runs, each in a process of its own with the same threads and the same limit of memory:

- `refrain experiment analyze`: log to verdict, with its checks, covariates and curves;
- DuckDB on the statement of `refrain experiment sql`: log to the table of units, and no further.

Prints rows a second and the largest resident memory of both, and checks that they count the same units.
`--only generate|refrain|duckdb` runs one of the three on a kept log.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

PLAN = """\
[experiment.blend]
epoch = 1
design = { method = "fixed", max_units = 1000 }
segments = ["surface"]
[[experiment.blend.arm]]
name = "control"
weight = 1
[[experiment.blend.arm]]
name = "blend03"
weight = 1
[[experiment.blend.metric]]
name = "minutes"
event = "listen_minutes"
role = "success"
window = "closed(0d,7d)"
missing = "zero"
mde_rel = 0.02
[[experiment.blend.metric]]
name = "requests"
source = "exposure.count"
role = "guardrail"
window = "closed(0d,7d)"
margin_rel = 0.02
"""

def generate(scratch, rows, chunk=5_000_000):
    import duckdb

    units = max(1000, rows // 12)
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'; SET memory_limit = '2GB'")
    for table in ("exposures", "outcomes"):
        (scratch / table).mkdir(parents=True)
    for at, first in enumerate(range(0, rows, chunk)):
        last = min(first + chunk, rows)
        # A row's unit: two multiplicative hashes away from its number, so that units come in no order. A retry
        # repeats the identifier of the row before.
        db.execute(f"""
            COPY (
              WITH numbered AS (
                SELECT i, i - CASE WHEN i % 5 = 4 THEN 1 ELSE 0 END AS request FROM range({first}, {last}) t(i)
              ), of AS (
                SELECT i, request, hash(request) AS h, hash(request) % {units} AS unit,
                       CASE WHEN hash(hash(request) % {units}) % 2 = 0 THEN 'control' ELSE 'blend03' END AS variant_of
                FROM numbered
              )
              SELECT unhex(md5(CAST(request AS VARCHAR))) AS exposure_id,
                     TIMESTAMPTZ '2026-03-02 00:00:00+00' + to_microseconds(CAST((i::DOUBLE / {rows}) * 21 * 86400e6 AS BIGINT)) AS ts,
                     'listener-' || unit AS unit_id,
                     CASE unit % 3 WHEN 0 THEN 'home' WHEN 1 THEN 'search' ELSE 'radio' END AS surface,
                     'blend' AS experiment, 1::UINTEGER AS exp_epoch,
                     variant_of AS variant,
                     'SPLIT' AS reason, (2000 + h % 9000)::UINTEGER AS latency_us, h % 500 = 0 AS empty,
                     [0.5, 0.5]::FLOAT[] AS weights, 'v12' AS index_version, variant_of AS served_variant, 0::USMALLINT AS degraded, FALSE AS forced, FALSE AS bot_flag
              FROM of
            ) TO '{scratch}/exposures/{at:05}.parquet' (FORMAT parquet, COMPRESSION snappy, ROW_GROUP_SIZE 250000)
        """)
        db.execute(f"""
            COPY (
              SELECT TIMESTAMPTZ '2026-03-02 00:00:00+00'
                       + to_microseconds(CAST((i::DOUBLE / {rows}) * 21 * 86400e6 + 60e6 AS BIGINT)) AS ts,
                     'listener-' || (hash(i - CASE WHEN i % 5 = 4 THEN 1 ELSE 0 END) % {units}) AS unit_id,
                     'listen_minutes' AS event, (hash(i + 7) % 1000) / 50.0 AS value
              FROM range({first}, {last}, 5) t(i)
            ) TO '{scratch}/outcomes/{at:05}.parquet' (FORMAT parquet, COMPRESSION snappy, ROW_GROUP_SIZE 250000)
        """)
        print(f"\rwriting {last:,} of {rows:,} rows", end="", file=sys.stderr)
    print(file=sys.stderr)
    (scratch / "plan.toml").write_text(PLAN)


def measured(command):
    """Seconds, largest resident memory in bytes, standard output."""
    before = time.monotonic()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen([str(word) for word in command], stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - before
        out.seek(0)
        text = out.read()
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, 4):
        raise SystemExit(f"{command[0]} ended with {code}: {text[-2000:]}")
    return seconds, usage.ru_maxrss * 1024, text


def ours(program, scratch, threads, memory):
    seconds, peak, text = measured(
        [program, "experiment", "analyze", "--json", "--config", scratch / "plan.toml", "--log", scratch,
         "--threads", threads, "--memory", memory]
    )  # fmt: skip
    document = json.loads(text)
    return seconds, peak, {
        "units": sum(document["observed"]["units"]),
        "control": document["observed"]["units"][0],
        "verdict": document["verdict"]["recommendation"],
        "spilled": document["data"]["input"].get("log", {}).get("spilled_bytes"),
    }


def duckdb_run(program, scratch, threads, memory):
    tables = [word for flag in ("exposures", "outcomes") for word in (f"--{flag}", f"read_parquet('{scratch}/{flag}/*.parquet')")]
    statement = subprocess.run(
        [program, "experiment", "sql", "--config", scratch / "plan.toml", "--dialect", "duckdb", *tables],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    job = scratch / "make_units.py"
    units = scratch / "units.parquet"
    job.write_text(f"""\
import duckdb
db = duckdb.connect()
db.execute("SET threads = {threads}; SET memory_limit = '{memory}MB'; SET temp_directory = '{scratch}/spill'; SET TimeZone = 'UTC'")
db.execute({("COPY (" + statement.rstrip().rstrip(";") + f") TO '{units}' (FORMAT parquet)")!r})
print(db.execute("SELECT count(*), count(*) FILTER (arm = 'control') FROM '{units}'").fetchone())
""")
    seconds, peak, text = measured([sys.executable, job])
    total, control = eval(text)
    return seconds, peak, {"units": total, "control": control}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("refrain")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--scratch", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--memory", type=int, default=768, help="MiB of rows held by refrain")
    parser.add_argument("--duckdb-memory", type=int, default=2048, help="MB that DuckDB may use")
    parser.add_argument("--only", choices=["generate", "refrain", "duckdb"])
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    scratch = args.scratch or pathlib.Path(tempfile.mkdtemp(prefix="refrain-analysis-"))
    try:
        if args.only in (None, "generate"):
            generate(scratch, args.rows)
        size = sum(f.stat().st_size for f in scratch.glob("*/*.parquet"))
        results = {}
        for name, run, memory in (("refrain", ours, args.memory), ("duckdb", duckdb_run, args.duckdb_memory)):
            if args.only in (None, name):
                seconds, peak, found = run(args.refrain, scratch, args.threads, memory)
                results[name] = found
                print(
                    f"{name:8} {args.rows:,} exposures, {size / 1e9:.2f} GB, {args.threads} threads: {seconds:.1f} s, "
                    f"{args.rows / seconds / 1e6:.2f} M rows/s, at most {peak / 2**20:.0f} MiB resident, {found}",
                    flush=True,
                )
        if len(results) == 2:
            a, b = results["refrain"], results["duckdb"]
            assert (a["units"], a["control"]) == (b["units"], b["control"]), "they do not count the same units"
    finally:
        if not args.keep and args.only is None:
            shutil.rmtree(scratch, ignore_errors=True)


main()
