use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use super::*;

fn throwaway() -> ClusterOptions {
    ClusterOptions { durable: false, ..ClusterOptions::default() }
}

fn psql(dsn: &str, sql: &str) -> Output {
    Command::new("psql").args(["-XAtc", sql, dsn]).output().unwrap()
}

fn answers(dsn: &str, sql: &str) -> String {
    let output = psql(dsn, sql);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_cluster_starts_restarts_crashes_and_leaves_nothing() {
    let options =
        ClusterOptions { settings: vec![("max_connections".to_owned(), "17".to_owned())], ..throwaway() };
    let cluster = Cluster::start(options).await.unwrap();
    let dsn = cluster.dsn("postgres");
    assert_eq!(answers(&dsn, "show wal_level"), "logical");
    assert_eq!(answers(&cluster.socket_dsn("postgres"), "show max_connections"), "17");
    assert!(PORTS.contains(&cluster.port()));

    answers(&dsn, "create table t as select 1 as n");
    cluster.restart(StopMode::Fast).await.unwrap();
    cluster.kill_now().unwrap();
    cluster.stop(StopMode::Immediate).await.unwrap();
    assert!(!psql(&dsn, "select 1").status.success());
    cluster.resume().await.unwrap();
    assert_eq!(answers(&dsn, "select n from t"), "1");

    let folder = cluster.data_dir().parent().unwrap().to_owned();
    drop(cluster);
    assert!(!psql(&dsn, "select 1").status.success());
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_kept_folder_is_used_again_and_tcp_asks_for_the_password() {
    let parent = tempfile::tempdir().unwrap();
    fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let options = ClusterOptions {
        data_dir: Some(parent.path().join("it's a folder")),
        password: Some(Secret::new("wished".to_owned())),
        ..throwaway()
    };
    let cluster = Cluster::start(options.clone()).await.unwrap();
    answers(&cluster.dsn("postgres"), "create table t as select 2 as n");
    let wrong = cluster.dsn("postgres").replace("wished", "guessed");
    assert!(!psql(&wrong, "select 1").status.success());
    drop(cluster);
    let cluster = Cluster::start(options).await.unwrap();
    assert_eq!(answers(&cluster.dsn("postgres"), "select n from t"), "2");
}

#[tokio::test]
async fn a_server_that_does_not_start_says_why() {
    let options =
        ClusterOptions { settings: vec![("shared_buffers".to_owned(), "no".to_owned())], ..throwaway() };
    let error = Cluster::start(options).await.unwrap_err().to_string();
    assert!(error.contains("invalid value for parameter \"shared_buffers\""), "{error}");
}
