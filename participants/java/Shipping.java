import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.time.Instant;
import java.util.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.*;

/** Shipping for Sagamore, on Kafka's own client: no library of Sagamore's. It speaks sagas, two-phase and three-phase commit.
 *  Its store is a file: effects and answers of all commands of a poll are appended and synced together, before a reply leaves. */
public class Shipping {
    static final ObjectMapper JSON = new ObjectMapper();
    static final List<String> BRANCH = List.of("instance", "subject", "birth", "step", "branch");
    static final Set<String> OPERATIONS = Set.of("execute", "compensate", "prepare", "precommit", "commit", "abort");

    /** What is remembered of a branch: answers by operation, and the vote with its place and input. */
    static final class Rows {
        final Map<String, ObjectNode> answers = new HashMap<>();
        ObjectNode vote;
        Instant asked = Instant.EPOCH;

        boolean has(String operation) { return answers.containsKey(operation); }
        boolean done(String operation) { return has(operation) && answers.get(operation).path("outcome").asText().equals("ok"); }
        boolean inDoubt() { return done("prepare") && !has("commit") && !has("abort"); }
        boolean booked() { return !has("compensate") && (done("execute") || done("prepare") && has("commit")); }
    }

    final Map<String, String> options;
    final String inbox, name;
    final Duration asksAfter;
    final Map<String, Rows> branches = new HashMap<>();
    final Map<String, Instant> horizons = new HashMap<>();
    final StringBuilder unwritten = new StringBuilder();
    final List<ProducerRecord<String, String>> outgoing = new ArrayList<>();
    final FileChannel store;

    Shipping(Map<String, String> options) throws IOException {
        this.options = options;
        name = options.get("name");
        inbox = options.get("prefix") + ".inbox";
        asksAfter = Duration.ofMillis(Long.parseLong(options.get("asks-after-ms")));
        store = FileChannel.open(Path.of(options.get("store")), StandardOpenOption.CREATE, StandardOpenOption.READ, StandardOpenOption.WRITE);
        if (store.tryLock() == null) throw new IOException("another process has " + options.get("store"));
        ByteBuffer bytes = ByteBuffer.allocate(Math.toIntExact(store.size()));
        while (bytes.hasRemaining() && store.read(bytes) >= 0) { }
        int end = bytes.position(), complete = end;
        while (complete > 0 && bytes.get(complete - 1) != '\n') complete--;
        store.truncate(complete).position(complete); // a line without its end was never answered
        for (String line : new String(bytes.array(), 0, complete, StandardCharsets.UTF_8).split("\n")) {
            if (!line.isEmpty()) remember((ObjectNode) JSON.readTree(line));
        }
    }

    /** One line of the store: answers of a branch, or a horizon. */
    void remember(ObjectNode line) {
        if (line.has("horizon")) {
            horizons.put(line.get("home").asText(), Instant.parse(line.get("horizon").asText()));
            return;
        }
        Rows rows = branches.computeIfAbsent(line.get("branch").toString(), key -> new Rows());
        rows.answers.put(line.get("operation").asText(), (ObjectNode) line.get("answer"));
        if (line.has("vote")) rows.vote = (ObjectNode) line.get("vote");
    }

    void write(ObjectNode line) {
        remember(line);
        unwritten.append(line).append('\n');
    }

    static ObjectNode says(String outcome, String reason) {
        ObjectNode answer = JSON.createObjectNode().put("outcome", outcome);
        return reason == null ? answer : answer.put("reason", reason);
    }

    static String text(JsonNode from, String field) {
        if (!from.path(field).isTextual()) throw new IllegalArgumentException("attribute " + field + " is missing, or no text");
        return from.get(field).asText();
    }

    /** What is named by instance, subject, birth, step and branch. */
    static JsonNode branchOf(JsonNode from) {
        var branch = JSON.createArrayNode();
        BRANCH.forEach(field -> branch.add(text(from, field)));
        return branch;
    }

    ObjectNode keep(JsonNode branch, String operation, ObjectNode answer, ObjectNode command) {
        ObjectNode line = JSON.createObjectNode().put("operation", operation);
        line.set("branch", branch);
        line.set("answer", answer);
        boolean wasBooked = branches.containsKey(branch.toString()) && branches.get(branch.toString()).booked();
        boolean isVote = operation.equals("prepare") && answer.path("outcome").asText().equals("ok");
        if (isVote) line.set("vote", JSON.createObjectNode().put("replyto", text(command, "replyto")).put("issued", text(command, "issued")));
        remember(line);
        boolean isBooked = branches.get(branch.toString()).booked();
        if (wasBooked != isBooked) line.put(isBooked ? "booked" : "returned", text(command, "subject")); // the effect
        write(line);
        return answer;
    }

    /** The business: a parcel to a country to which somebody goes. */
    ObjectNode book(JsonNode command) {
        JsonNode country = command.path("data").path("country");
        if (!country.isTextual()) return says("refused", "bad-input: a shipment has a country");
        if (options.get("refuse").contains(country.asText())) return says("refused", "no-carrier: " + country.asText());
        ObjectNode answer = says("ok", null);
        answer.putObject("data").put("tracking", "trk-" + text(command, "subject") + "-" + text(command, "birth"));
        return answer;
    }

    ObjectNode answer(ObjectNode command) {
        JsonNode branch = branchOf(command);
        String operation = text(command, "operation"), home = text(command, "instance") + "/" + text(command, "birth").split("-")[0];
        Instant issued = Instant.parse(text(command, "issued")), watermark = Instant.parse(text(command, "watermark"));
        if (!OPERATIONS.contains(operation) || !command.path("attempt").isInt()) throw new IllegalArgumentException("no such operation, or no attempt");
        Instant horizon = horizons.getOrDefault(home, Instant.EPOCH), told = watermark.isBefore(issued) ? watermark : issued;
        if (told.isAfter(horizon)) write(JSON.createObjectNode().put("home", home).put("horizon", (horizon = told).toString()));
        Rows rows = branches.getOrDefault(branch.toString(), new Rows());
        if (rows.has(operation)) return rows.answers.get(operation); // a duplicate: the stored answer, nothing else
        if (rows.answers.isEmpty() && issued.isBefore(horizon)) return says("refused", "expired"); // it may have been done and forgotten
        return perform(branch, operation, rows, command);
    }

    ObjectNode perform(JsonNode branch, String operation, Rows rows, ObjectNode command) {
        switch (operation) {
            case "execute", "prepare":
                return keep(branch, operation, book(command), command);
            case "compensate":
                if (rows.inDoubt()) return says("error", "in-doubt");
                // What has not been done until now must never be done.
                if (!rows.has("execute") && !rows.has("prepare")) keep(branch, "execute", says("refused", "cancelled"), command);
                break;
            case "abort":
                if (rows.has("commit")) return says("refused", "committed");
                if (!rows.has("prepare")) keep(branch, "prepare", says("refused", "cancelled"), command);
                break;
            default: // precommit, commit
                if (!rows.done("prepare")) return says("refused", "not-prepared");
                if (rows.has("abort")) return says("refused", "aborted");
        }
        return keep(branch, operation, says("ok", null), command);
    }

    void serve(ConsumerRecord<String, byte[]> record) throws IOException {
        if (record.value() == null || !(JSON.readTree(record.value()) instanceof ObjectNode asked)) throw new IllegalArgumentException("no JSON object");
        String type = text(asked, "type");
        if (!text(asked, "specversion").equals("1.0")) throw new IllegalArgumentException("another specversion");
        if (type.equals("sagamore.decision.v1")) {
            decide(asked);
            return;
        }
        String[] replyto = text(asked, "replyto").split("/", 2);
        if (!type.equals("sagamore.command.v1") || !replyto[0].equals(inbox)) throw new IllegalArgumentException("not a command with a reply to " + inbox);
        int home = Integer.parseInt(replyto[1]);
        ObjectNode reply = event("sagamore.reply.v1", asked.path("id").asText() + "/reply");
        BRANCH.forEach(field -> reply.set(field, asked.get(field)));
        for (String field : List.of("operation", "attempt", "replytoken")) if (asked.has(field)) reply.set(field, asked.get(field));
        reply.setAll(answer(asked));
        outgoing.add(new ProducerRecord<>(inbox, home, text(asked, "subject"), reply.toString()));
    }

    /** The answer to an inquiry: as the command of that name, and no reply. */
    void decide(ObjectNode verdict) {
        JsonNode branch = branchOf(verdict);
        Rows rows = branches.get(branch.toString());
        String decision = text(verdict, "decision");
        if (!text(verdict, "participant").equals(name) || rows == null || !rows.inDoubt()) return;
        if (decision.equals("commit") || decision.equals("abort")) perform(branch, decision, rows, verdict);
        if (decision.equals("forgotten")) System.err.println("in doubt for ever, a person has to decide: " + branch);
    }

    /** Votes that have waited too long ask what was decided. */
    void inquire() {
        Instant now = Instant.now();
        branches.forEach((key, rows) -> {
            if (!rows.inDoubt() || rows.asked.plus(asksAfter).isAfter(now) || Instant.parse(text(rows.vote, "issued")).plus(asksAfter).isAfter(now)) return;
            rows.asked = now;
            try {
                JsonNode branch = JSON.readTree(key);
                ObjectNode inquiry = event("sagamore.inquiry.v1", key + "/inquiry").put("participant", name);
                for (int field = 0; field < BRANCH.size(); field++) inquiry.set(BRANCH.get(field), branch.get(field));
                int home = Integer.parseInt(text(rows.vote, "replyto").split("/", 2)[1]);
                outgoing.add(new ProducerRecord<>(inbox, home, branch.get(1).asText(), inquiry.toString()));
            } catch (JsonProcessingException error) {
                throw new IllegalStateException(error);
            }
        });
    }

    ObjectNode event(String type, String id) {
        return JSON.createObjectNode().put("specversion", "1.0").put("type", type).put("id", id).put("source", "/" + name);
    }

    void run() throws Exception {
        Properties settings = new Properties();
        settings.putAll(Map.of("bootstrap.servers", options.get("kafka"), "group.id", options.get("prefix") + "." + name, "auto.offset.reset", "earliest",
            "isolation.level", "read_committed", "enable.auto.commit", "false", "acks", "all", "linger.ms", "0"));
        settings.put("group.instance.id", name); // the one instance: back at once after a kill
        try (var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new ByteArrayDeserializer());
             var producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            consumer.subscribe(List.of(options.get("prefix") + ".commands." + name));
            while (true) {
                ConsumerRecords<String, byte[]> records = consumer.poll(Duration.ofMillis(500));
                for (ConsumerRecord<String, byte[]> record : records) {
                    try {
                        serve(record);
                    } catch (IOException | RuntimeException error) { // one bad record must not stop the others
                        System.err.println(new TopicPartition(record.topic(), record.partition()) + "/" + record.offset() + ": " + error);
                    }
                }
                inquire();
                ByteBuffer lines = StandardCharsets.UTF_8.encode(unwritten.toString());
                unwritten.setLength(0);
                boolean isNew = lines.hasRemaining();
                while (lines.hasRemaining()) store.write(lines);
                if (isNew) store.force(true);
                var sent = outgoing.stream().map(producer::send).toList();
                outgoing.clear();
                for (var reply : sent) reply.get(); // an error ends the process without a commit: the next one takes the command again
                if (!records.isEmpty()) consumer.commitSync();
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        Map<String, String> options = new HashMap<>(Map.of("kafka", "127.0.0.1:9092", "prefix", "sagamore", "name", "shipping",
            "refuse", "Ireland,Norway,Poland", "store", "shipping.jsonl", "asks-after-ms", "30000"));
        options.replaceAll((option, value) -> System.getenv().getOrDefault("SAGAMORE_" + option.toUpperCase().replace('-', '_'), value));
        for (int at = 0; at + 1 < arguments.length; at += 2) {
            if (options.replace(arguments[at].replaceFirst("^--", ""), arguments[at + 1]) == null) throw new IllegalArgumentException(arguments[at]);
        }
        new Shipping(options).run();
    }
}
