//! The tables, and how older ones are brought up to date.

use postgres::NoTls;

use super::OpenPostgresError;

/// What brings the tables from one version to the next. Never changed once released: append.
///
/// Ids are `bytea`: texts of PostgreSQL cannot hold a zero byte, and ids of listeners can. Records have the
/// bytes of the embedded store, checksum included.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE refrain_user (
        user_id bytea PRIMARY KEY,
        revision bigint NOT NULL,
        record bytea NOT NULL
    );
    CREATE TABLE refrain_event (
        user_id bytea NOT NULL,
        event_id bytea NOT NULL,
        record bytea NOT NULL,
        PRIMARY KEY (user_id, event_id)
    );
    CREATE TABLE refrain_rule (
        user_id bytea NOT NULL,
        rule_id bytea NOT NULL,
        record bytea NOT NULL,
        PRIMARY KEY (user_id, rule_id)
    );
    CREATE TABLE refrain_number (
        name text PRIMARY KEY,
        value bigint NOT NULL
    );
    INSERT INTO refrain_number VALUES ('floor', 0);
"];

/// Any number, the same in every process: one migrates at a time.
const MIGRATION_LOCK: i64 = 0x5265_6672_6169_6e01;

/// Brings the tables up to date; the channel on which changes are told.
pub(super) fn migrate(config: &postgres::Config, place: &str) -> Result<String, OpenPostgresError> {
    let connect = |source| OpenPostgresError::Connect {
        place: place.to_owned(),
        source: Box::new(source),
    };
    let mut client = config.connect(NoTls).map_err(connect)?;
    let mut transaction = client.transaction().map_err(connect)?;
    transaction
        .execute("SELECT pg_advisory_xact_lock($1)", &[&MIGRATION_LOCK])
        .map_err(connect)?;
    transaction
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS refrain_schema (version integer NOT NULL);
             INSERT INTO refrain_schema SELECT 0 WHERE NOT EXISTS (SELECT FROM refrain_schema)",
        )
        .map_err(connect)?;
    let row = transaction
        .query_one("SELECT version FROM refrain_schema", &[])
        .map_err(connect)?;
    let version: i32 = row.get(0);
    let known = i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX);
    if version > known {
        let place = place.to_owned();
        return Err(OpenPostgresError::Version {
            place,
            version,
            known,
        });
    }
    let done = usize::try_from(version).unwrap_or_default();
    for migration in MIGRATIONS.iter().skip(done) {
        transaction.batch_execute(migration).map_err(connect)?;
    }
    transaction
        .execute("UPDATE refrain_schema SET version = $1", &[&known])
        .map_err(connect)?;
    // Schemas of one database share its channels.
    let row = transaction
        .query_one("SELECT 'refrain_' || md5(current_schema()::text)", &[])
        .map_err(connect)?;
    let channel = row.get(0);
    transaction.commit().map_err(connect)?;
    Ok(channel)
}
