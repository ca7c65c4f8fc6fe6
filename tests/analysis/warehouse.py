"""The table of units that DuckDB and Spark make from a log gives the verdict of the log itself.

    python tests/analysis/warehouse.py target/release/refrain [duckdb] [spark]

One simulated log with retries, bots, units in two arms and changed weights is analysed three ways: the
log itself, and the table that each engine makes with the statement of `refrain experiment sql`. Every
number of every comparison and check must agree to 1e-9, relatively.
"""

import json
import math
import pathlib
import shutil
import subprocess
import sys
import tempfile


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    # 3 and 4 are verdicts, not failures.
    assert done.returncode in (0, 3, 4), done.stderr
    return done.stdout


def duckdb_units(statement, folder, out):
    import duckdb

    db = duckdb.connect()
    db.execute("SET TimeZone = 'America/New_York'")  # must not matter
    db.execute(f"COPY ({statement}) TO '{out}' (FORMAT parquet)")


def spark_units(statement, folder, out):
    from pyspark.sql import SparkSession

    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.session.timeZone", "America/New_York")
        .config("spark.sql.shuffle.partitions", "1")
        .config("spark.driver.memory", "2g")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    for table in ("exposures", "outcomes", "covariates"):
        name = "unit_covariates" if table == "covariates" else table
        spark.read.parquet(str(folder / table)).createOrReplaceTempView(name)
    parts = pathlib.Path(str(out) + ".parts")
    spark.sql(statement).coalesce(1).write.parquet(str(parts))
    shutil.copy(next(parts.glob("*.parquet")), out)


ENGINES = {"duckdb": duckdb_units, "spark": spark_units}


def same(a, b, path=""):
    if isinstance(a, float) or isinstance(b, float):
        if a is None or b is None or not math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12):
            raise SystemExit(f"{path}: {a} from the log, {b} from the table")
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), f"{path}: {a.keys() ^ b.keys()}"
        for key in a:
            # Daily curves need the log.
            if key not in ("by_day", "by_age"):
                same(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), f"{path}: {len(a)} and {len(b)}"
        for at, (x, y) in enumerate(zip(a, b)):
            same(x, y, f"{path}[{at}]")
    elif a != b:
        raise SystemExit(f"{path}: {a!r} from the log, {b!r} from the table")


def main():
    refrain, *engines = sys.argv[1:]
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        for name, faults in {
            "sound": ["--lift", "0.05"],
            "faulty": ["--ramp", "--switchers", "0.0004", "--treatment-bots", "0.0005"],
        }.items():
            log = scratch / name
            run(refrain, "experiment", "simulate", "--out", log, "--units", "6000", *faults)
            plan = log / "plan.toml"
            # Quantiles need the events themselves.
            text = plan.read_text()
            plan.write_text(text[: text.rindex("[[experiment.blend.metric]]")])
            whole = json.loads(run(refrain, "experiment", "analyze", "--json", "--config", plan, "--log", log))
            for engine in engines or ENGINES:
                tables = []
                if engine == "duckdb":
                    for flag, table in (("exposures",) * 2, ("outcomes",) * 2, ("covariates",) * 2):
                        tables += [f"--{flag}", f"read_parquet('{log}/{table}/*.parquet')"]
                statement = run(refrain, "experiment", "sql", "--config", plan, "--dialect", engine, *tables)
                units = scratch / f"{name}-{engine}.parquet"
                ENGINES[engine](statement, log, units)
                table = json.loads(run(refrain, "experiment", "analyze", "--json", "--config", plan, "--units", units))
                for part in ("verdict", "metrics"):
                    same(whole[part], table[part], part)
                # What only the log can say is not asked of the table.
                asked = {check["id"] for check in table["quality"]}
                same([c for c in whole["quality"] if c["id"] in asked], table["quality"], "quality")
                assert whole["observed"]["units"] == table["observed"]["units"]
                print(f"{name}: {engine} gives {table['verdict']['recommendation']} like the log, {sum(table['observed']['units'])} units")


main()
