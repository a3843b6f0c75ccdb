use super::*;
use crate::cli::cluster::{Cluster, ClusterOptions};
use crate::cli::migrate;

#[tokio::test]
async fn a_database_is_set_up_once_and_then_has_nothing_missing() {
    let cluster =
        Cluster::start(ClusterOptions { durable: false, ..ClusterOptions::default() }).await.unwrap();
    let dsn = Dsn::parse(&cluster.dsn("postgres")).unwrap();
    let config = Config::reference();
    let client = client::connect(&dsn).await.unwrap();

    let error = apply(&config, &dsn).await.unwrap_err();
    assert!(error.to_string().contains("the catalog does not fit the database"), "{error}");

    migrate::run(&dsn, true).await.unwrap();
    client.batch_execute("create role worker login replication; create role \"an app\" login").await.unwrap();
    let roles = Roles { worker: Some("worker".to_owned()), emitters: vec!["an app".to_owned()] };
    let missing = Missing::find(&client, &config, &dsn, &roles).await.unwrap();
    let sql = format!("{}{}", missing.plan, missing.permissions);
    for part in [
        "create publication \"walcast\" for table",
        "\"public\".\"memberships\"",
        "pg_create_logical_replication_slot('walcast_postgres', 'pgoutput'",
        "alter table \"public\".\"properties\" replica identity full",
        "grant usage on schema walcast to \"an app\";",
        "grant select on walcast.secret to \"worker\";",
        "grant execute on function walcast.emit(text, text, jsonb, text, jsonb, jsonb) to \"an app\";",
    ] {
        assert!(sql.contains(part), "{part} is not in\n{sql}");
    }
    assert!(!sql.contains("walcast.secret to \"an app\""), "{sql}");

    missing.make(&client).await.unwrap();
    let again = Missing::find(&client, &config, &dsn, &roles).await.unwrap();
    assert!(again.plan.is_empty(), "{}", again.plan);
    assert!(again.permissions.is_empty(), "{}", again.permissions);
    apply(&config, &dsn).await.unwrap();

    let worker = client::connect(&Dsn { user: "worker".to_owned(), ..dsn.clone() }).await.unwrap();
    worker.query_one("select value from walcast.secret", &[]).await.unwrap();
    let app = client::connect(&Dsn { user: "an app".to_owned(), ..dsn.clone() }).await.unwrap();
    app.batch_execute("select walcast.emit('acme', 'x', '{}')").await.unwrap();
    assert!(app.query_one("select value from walcast.secret", &[]).await.is_err());

    let unknown = Roles { worker: None, emitters: vec!["nobody here".to_owned()] };
    assert!(Missing::find(&client, &config, &dsn, &unknown).await.is_err());
}

#[tokio::test]
async fn what_access_names_and_the_database_has_not_is_told() {
    let cluster =
        Cluster::start(ClusterOptions { durable: false, ..ClusterOptions::default() }).await.unwrap();
    let dsn = Dsn::parse(&cluster.dsn("postgres")).unwrap();
    migrate::run(&dsn, true).await.unwrap();
    let mut config = Config::reference();
    config.access.memberships.as_mut().unwrap().user = "person".to_owned();
    let error = apply(&config, &dsn).await.unwrap_err();
    assert_eq!(error.to_string(), "access names a column person that memberships does not have");
}
