//! The home partition of a transaction: murmur2 modulo the partition count, as Kafka's Java client does it.
//!
//! Source: `org.apache.kafka.common.utils.Utils.murmur2` (32-bit MurmurHash2 by Austin Appleby, seed `0x9747b28c`).

use crate::ids::{Partition, TransactionId};

/// Where every record of this transaction goes. `partitions` must be positive.
pub fn home(id: &TransactionId, partitions: i32) -> Partition {
    partition_of(id.as_str().as_bytes(), partitions)
}

/// Where Java's default partitioner puts a key. `partitions` must be positive.
pub fn partition_of(key: &[u8], partitions: i32) -> Partition {
    assert!(partitions > 0, "a topic has at least one partition, not {partitions}");
    let positive = (murmur2(key) & 0x7fff_ffff).cast_signed();
    Partition(positive % partitions)
}

fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let (words, tail) = data.as_chunks::<4>();
    let mut h = SEED ^ length;
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (i, byte) in tail.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of Kafka's own test, `UtilsTest.testMurmur2`.
    #[test]
    fn agrees_with_the_java_client() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }
}
