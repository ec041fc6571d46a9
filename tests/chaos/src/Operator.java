// What an operator does with the tools of Kafka:
//   turn PREFIX    turns the replicas of every partition by one place, elects the preferred leaders, prints how many moved
//   forget GROUP   deletes a group with its offsets, as soon as nobody is in it; prints 1
import java.util.*;
import java.util.concurrent.ExecutionException;
import java.util.stream.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.common.*;

public class Operator {
    /** How long the members of a group may take to be missed. */
    static final long EMPTY_WITHIN_MS = 25_000;

    public static void main(String[] args) throws Exception {
        Map<String, Object> config = Map.of(
            "bootstrap.servers", args[0], "request.timeout.ms", "5000", "default.api.timeout.ms", "20000");
        try (Admin admin = Admin.create(config)) {
            System.out.println(args[1].equals("turn") ? turn(admin, args[2]) : forget(admin, args[2]));
        }
    }

    static long turn(Admin admin, String prefix) throws Exception {
        var before = look(admin, prefix + ".");
        Map<TopicPartition, Optional<NewPartitionReassignment>> turned = new HashMap<>();
        before.forEach((partition, info) -> {
            List<Integer> replicas = info.replicas().stream().map(Node::id).collect(Collectors.toList());
            Collections.rotate(replicas, 1);
            turned.put(partition, Optional.of(new NewPartitionReassignment(replicas)));
        });
        admin.alterPartitionReassignments(turned).all().get();
        try {
            admin.electLeaders(ElectionType.PREFERRED, before.keySet()).all().get();
        } catch (ExecutionException e) {
            // A preferred leader that is away keeps its partition where it is.
            System.err.println(e);
        }
        var after = look(admin, prefix + ".");
        return before.entrySet().stream().filter(entry -> {
            Node one = entry.getValue().leader(), other = after.get(entry.getKey()).leader();
            return one != null && other != null && one.id() != other.id();
        }).count();
    }

    static Map<TopicPartition, TopicPartitionInfo> look(Admin admin, String prefix) throws Exception {
        Set<String> names = admin.listTopics().names().get().stream()
            .filter(name -> name.startsWith(prefix)).collect(Collectors.toSet());
        names.addAll(List.of("__consumer_offsets", "__transaction_state"));
        Map<TopicPartition, TopicPartitionInfo> found = new HashMap<>();
        admin.describeTopics(names).allTopicNames().get().forEach((name, topic) ->
            topic.partitions().forEach(p -> found.put(new TopicPartition(name, p.partition()), p)));
        return found;
    }

    static long forget(Admin admin, String group) throws Exception {
        long begun = System.nanoTime();
        while (true) {
            try {
                admin.deleteConsumerGroups(List.of(group)).all().get();
                return 1;
            } catch (ExecutionException e) {
                if ((System.nanoTime() - begun) / 1_000_000 > EMPTY_WITHIN_MS) throw e;
                Thread.sleep(300);
            }
        }
    }
}
