// A slot read by Debezium's embedded engine, each row decoded to its record, and nothing done with it.
//
//   java Debezium <url> <slot> drain <rows>   prints `done` after so many inserted rows
//   java Debezium <url> <slot> follow         prints a line `<marker's sequence> <nanoseconds>` for each
//
// Ends with its stdin, and when a row's id does not count up by one. What libraries print goes to stderr.

import io.debezium.embedded.Connect;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.RecordChangeEvent;
import io.debezium.engine.format.ChangeEventFormat;
import java.io.IOException;
import java.io.PrintStream;
import java.net.URI;
import java.time.Instant;
import java.util.List;
import java.util.Properties;
import java.util.regex.Pattern;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.source.SourceRecord;

final class Debezium implements DebeziumEngine.ChangeConsumer<RecordChangeEvent<SourceRecord>> {
  private static final PrintStream OUT = System.out;
  private static final Pattern MARKER = Pattern.compile("#(\\d+)#");

  private final boolean follow;
  private long left;
  private long last;

  private Debezium(boolean follow, long rows) {
    this.follow = follow;
    left = rows;
  }

  public static void main(String[] arguments) throws IOException {
    System.setOut(System.err);
    var follow = arguments[2].equals("follow");
    var rows = follow ? 0 : Long.parseLong(arguments[3]);
    var engine =
        DebeziumEngine.create(ChangeEventFormat.of(Connect.class))
            .using(properties(URI.create(arguments[0]), arguments[1], follow))
            .using((DebeziumEngine.CompletionCallback) (success, message, error) -> fail(message))
            .using(
                new DebeziumEngine.ConnectorCallback() {
                  @Override
                  public void pollingStarted() {
                    OUT.println("started");
                  }
                })
            .notifying(new Debezium(follow, rows))
            .build();
    new Thread(engine).start();
    while (System.in.read() >= 0) {}
    Runtime.getRuntime().halt(0);
  }

  private static Properties properties(URI url, String slot, boolean follow) {
    var user = url.getUserInfo().split(":", 2);
    var properties = new Properties();
    properties.put("name", "bench");
    properties.put("topic.prefix", "bench");
    properties.put("connector.class", "io.debezium.connector.postgresql.PostgresConnector");
    properties.put("offset.storage", "org.apache.kafka.connect.storage.MemoryOffsetBackingStore");
    properties.put("database.hostname", url.getHost());
    properties.put("database.port", String.valueOf(url.getPort()));
    properties.put("database.dbname", url.getPath().substring(1));
    properties.put("database.user", user[0]);
    properties.put("database.password", user.length > 1 ? user[1] : "");
    properties.put("plugin.name", "pgoutput");
    properties.put("slot.name", slot);
    properties.put("publication.name", "walcast");
    properties.put("publication.autocreate.mode", "disabled");
    properties.put("snapshot.mode", "no_data");
    // By default half a second, which few rows wait for; a backlog is read with less work so.
    if (follow) properties.put("poll.interval.ms", "1");
    return properties;
  }

  @Override
  public void handleBatch(
      List<RecordChangeEvent<SourceRecord>> events,
      DebeziumEngine.RecordCommitter<RecordChangeEvent<SourceRecord>> committer)
      throws InterruptedException {
    for (var event : events) {
      var change = (Struct) event.record().value();
      if ("c".equals(change.getString("op"))) inserted(change.getStruct("after"));
      committer.markProcessed(event);
    }
    committer.markBatchFinished();
  }

  private void inserted(Struct row) {
    var id = row.getInt64("id");
    if (last > 0 && id != last + 1) fail("row " + id + " after row " + last);
    last = id;
    if (follow) {
      var marker = MARKER.matcher(row.getString("event_type"));
      if (marker.find()) OUT.println(marker.group(1) + " " + nowNanos());
    } else if (--left == 0) {
      OUT.println("done");
    }
  }

  /** Nanoseconds since 1970. */
  private static long nowNanos() {
    var now = Instant.now();
    return now.getEpochSecond() * 1_000_000_000L + now.getNano();
  }

  private static void fail(String message) {
    System.err.println("Debezium: " + message);
    Runtime.getRuntime().halt(1);
  }
}
