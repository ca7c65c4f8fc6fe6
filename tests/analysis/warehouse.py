"""The table of units that a warehouse makes from a log gives the verdict of the log itself.

    python tests/analysis/warehouse.py target/release/refrain [duckdb] [spark] [bigquery] [trino]

Simulated logs with retries, bots, units in two arms, changed weights, outcomes sent twice and a cut-off in
the middle are analysed several ways: the log itself, and the table that each engine makes with the statement
of `refrain experiment sql`. Every number of every comparison and check must agree to 1e-9, relatively.

DuckDB and Spark run here. For BigQuery and Trino, sqlglot reads the statement by their grammar, and DuckDB
runs what it means: that finds a statement that is not theirs or asks for something else, and not what the
engine itself would make of its types.
"""

import json
import math
import pathlib
import shutil
import subprocess
import sys
import tempfile

import duckdb
import sqlglot
from sqlglot import exp

DIALECTS = ("duckdb", "spark", "bigquery", "trino")
# Functions that sqlglot has no name for, though the engine has them.
OWN = {"duckdb": {"EPOCH_US"}}


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    # 3 and 4 are verdicts, not failures.
    assert done.returncode in (0, 3, 4), done.stderr
    return done.stdout


TABLES = {"exposures": "exposures", "outcomes": "outcomes", "covariates": "unit_covariates"}


def parsed(statement, dialect):
    """The statement as its dialect's grammar has it: one SELECT, of functions that are known."""
    trees = sqlglot.parse(statement, read=dialect, error_level=sqlglot.ErrorLevel.RAISE)
    assert len(trees) == 1 and isinstance(trees[0], exp.Select), f"{dialect}: {[type(tree) for tree in trees]}"
    unknown = {call.name.upper() for call in trees[0].find_all(exp.Anonymous)} - OWN.get(dialect, set())
    assert not unknown, f"{dialect}: {unknown}"
    return trees[0]


def duckdb_units(statement, folder, out, dialect="duckdb"):
    db = duckdb.connect()
    db.execute("SET TimeZone = 'America/New_York'")  # must not matter
    for table, name in TABLES.items():
        db.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{folder}/{table}/*.parquet')")
    if dialect != "duckdb":
        statement = parsed(statement, dialect).sql("duckdb", unsupported_level=sqlglot.ErrorLevel.RAISE)
    db.execute(f"COPY ({statement}) TO '{out}' (FORMAT parquet)")


def translated(dialect):
    return lambda statement, folder, out: duckdb_units(statement, folder, out, dialect)


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
    for table, name in TABLES.items():
        spark.read.parquet(str(folder / table)).createOrReplaceTempView(name)
    parts = pathlib.Path(str(out) + ".parts")
    spark.sql(statement).coalesce(1).write.parquet(str(parts))
    shutil.copy(next(parts.glob("*.parquet")), out)


ENGINES = {"duckdb": duckdb_units, "spark": spark_units, "bigquery": translated("bigquery"), "trino": translated("trino")}


def sent_twice(log):
    """Gives outcomes an id, but for every tenth; sends every seventh again, and some of these a day later."""
    path = log / "outcomes" / "simulated-0.parquet"
    duckdb.execute(
        f"""CREATE OR REPLACE TABLE outcomes AS SELECT *,
            CASE WHEN n % 10 > 0 THEN unhex(md5(n::VARCHAR)) END AS outcome_id
            FROM (SELECT *, row_number() OVER () AS n FROM read_parquet('{path}'))"""
    )
    again = "SELECT * REPLACE (ts + INTERVAL 1 DAY * (n % 2) AS ts) FROM outcomes WHERE n % 7 = 0 AND outcome_id IS NOT NULL"
    duckdb.execute(f"COPY (SELECT * EXCLUDE n FROM (FROM outcomes UNION ALL {again})) TO '{path}' (FORMAT parquet)")


def held_elsewhere(log):
    """Puts every ninth unit into another holdout, too: held out by it, or in its slice."""
    path = log / "exposures" / "simulated-0.parquet"
    duckdb.execute(
        f"""CREATE OR REPLACE TABLE exposures AS SELECT * REPLACE (CASE hash(unit_id) % 9
            WHEN 0 THEN 'q''3_ä|2|held||' || holdouts WHEN 1 THEN holdouts || '||q''3_ä|2|slice' ELSE holdouts END AS holdouts)
            FROM read_parquet('{path}')"""
    )
    duckdb.execute(f"COPY exposures TO '{path}' (FORMAT parquet)")


def same(a, b, path=""):
    if isinstance(a, float) or isinstance(b, float):
        if a is None or b is None or not math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12):
            raise SystemExit(f"{path}: {a} from the log, {b} from the table")
    elif isinstance(a, dict):
        # Daily curves and policies by segment need the log.
        a, b = ({key: of[key] for key in of if key not in ("by_day", "by_age", "policies")} for of in (a, b))
        assert a.keys() == b.keys(), f"{path}: {a.keys() ^ b.keys()}"
        for key in a:
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
        faults = ["--ramp", "--switchers", "0.0004", "--treatment-bots", "0.0005"]
        for name, simulated, flags in (
            ("sound", ["--lift", "0.05"], []),
            ("faulty", faults, []),
            ("half way", [*faults, "--lift", "0.05"], ["--until", "2026-01-15T06:00:00Z"]),
            ("sent twice", ["--lift", "0.05"], ["--outcome-ids"]),
            ("both", faults, ["--outcome-ids", "--until", "2026-01-24"]),
            ("holdout", ["--holdout", "q'4", "--lift", "0.05", "--switchers", "0.0004"], []),
        ):
            log = scratch / name.replace(" ", "-")
            run(refrain, "experiment", "simulate", "--out", log, "--units", "6000", *simulated)
            plan = log / "plan.toml"
            # Quantiles need the events themselves.
            text = plan.read_text()
            plan.write_text(text[: text.rindex("[[experiment.")])
            if name == "holdout":
                held_elsewhere(log)
            subject = ["--config", plan, "--log", log]
            if "--outcome-ids" in flags:
                once = json.loads(run(refrain, "experiment", "analyze", "--json", *subject))
                sent_twice(log)
            until = flags[-2:] if "--until" in flags else []
            whole = json.loads(run(refrain, "experiment", "analyze", "--json", *subject, *until))
            if "--outcome-ids" in flags:
                assert whole["data"]["leftovers"]["duplicate_outcomes"] > 1000
                assert until or whole["metrics"][0]["arms"] == once["metrics"][0]["arms"], "counted once"
            for dialect in DIALECTS:
                parsed(run(refrain, "experiment", "sql", "--config", plan, "--dialect", dialect, *flags), dialect)
            for engine in engines or ENGINES:
                # Starting Spark for each variant takes longer than it tells.
                if engine == "spark" and flags and name != "both":
                    continue
                statement = run(refrain, "experiment", "sql", "--config", plan, "--dialect", engine, *flags)
                units = scratch / f"{log.name}-{engine}.parquet"
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
