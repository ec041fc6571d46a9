// Turns the replicas of every partition by one place, elects the preferred leaders, and prints how many leaders moved.
import java.util.*;
import java.util.stream.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.common.*;

public class MoveLeaders {
    static Map<TopicPartition, TopicPartitionInfo> look(Admin admin, String prefix) throws Exception {
        Set<String> names = admin.listTopics().names().get().stream()
            .filter(name -> name.startsWith(prefix)).collect(Collectors.toSet());
        names.addAll(List.of("__consumer_offsets", "__transaction_state"));
        Map<TopicPartition, TopicPartitionInfo> found = new HashMap<>();
        admin.describeTopics(names).allTopicNames().get().forEach((name, topic) ->
            topic.partitions().forEach(p -> found.put(new TopicPartition(name, p.partition()), p)));
        return found;
    }

    public static void main(String[] args) throws Exception {
        Map<String, Object> config = Map.of(
            "bootstrap.servers", args[0], "request.timeout.ms", "10000", "default.api.timeout.ms", "20000");
        try (Admin admin = Admin.create(config)) {
            var before = look(admin, args[1] + ".");
            Map<TopicPartition, Optional<NewPartitionReassignment>> turned = new HashMap<>();
            before.forEach((partition, info) -> {
                List<Integer> replicas = info.replicas().stream().map(Node::id).collect(Collectors.toList());
                Collections.rotate(replicas, 1);
                turned.put(partition, Optional.of(new NewPartitionReassignment(replicas)));
            });
            admin.alterPartitionReassignments(turned).all().get();
            try {
                admin.electLeaders(ElectionType.PREFERRED, before.keySet()).all().get();
            } catch (java.util.concurrent.ExecutionException e) {
                // A preferred leader that is away keeps its partition where it is.
                System.err.println(e);
            }
            var after = look(admin, args[1] + ".");
            System.out.println(before.entrySet().stream().filter(entry -> {
                Node one = entry.getValue().leader(), other = after.get(entry.getKey()).leader();
                return one != null && other != null && one.id() != other.id();
            }).count());
        }
    }
}
