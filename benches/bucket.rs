//! What a decision costs on its own: the bucket, the headers' numbers, and the map with one key.

use std::hint::black_box;
use std::num::NonZeroUsize;

use criterion::{Criterion, criterion_group, criterion_main};
use tollgate::client::Quota;
use tollgate::limit::{Bucket, Charge, Key, KeyMaker, Limiter, Payer, Standing, Striped, StripedSettings, Tokens};

fn quota(capacity: u64, rate: f64) -> Quota {
    Quota::new(capacity, rate).expect("within bounds")
}

fn bucket(criterion: &mut Criterion) {
    let generous = quota(1_000_000_000, 1e9);
    criterion.bench_function("bucket: take, allowed", |bencher| {
        let (mut bucket, mut now) = (Bucket::full(generous, 0), 0);
        bencher.iter(|| {
            now += 1_000;
            bucket.take(black_box(generous), now)
        });
    });
    criterion.bench_function("bucket: take, refused", |bencher| {
        let (mut bucket, slow) = (Bucket::resume(Tokens::default(), 0), quota(1, 1e-6));
        bencher.iter(|| bucket.take(black_box(slow), 1_000));
    });
    criterion.bench_function("standing: all numbers of the headers", |bencher| {
        let quota = quota(100, 10.0);
        let standing = Standing::new(Bucket::resume(Tokens::whole(42), 0), quota, 1_234_567);
        bencher.iter(|| {
            let standing = black_box(&standing);
            (standing.remaining(), standing.window(), standing.reset(), standing.full_after(), standing.retry_after())
        });
    });
}

fn striped(criterion: &mut Criterion) {
    let quota = quota(1_000_000_000, 1e9);
    let settings = StripedSettings {
        max_buckets: NonZeroUsize::new(1_000_000).expect("not 0"),
        stripes: None,
        default_quota: quota,
    };
    let map = Striped::new(settings, 0);
    criterion.bench_function("striped: take, one key", |bencher| {
        let mut now = 0;
        bencher.iter(|| {
            now += 1_000;
            map.take(&Charge::one(black_box(Key::client(7)), quota), now)
        });
    });
    let keys = KeyMaker::new(1);
    criterion.bench_function("the key of an address", |bencher| {
        let address = [192, 0, 2, 1].into();
        bencher.iter(|| keys.key(Payer::address(black_box(address), 64)));
    });
    criterion.bench_function("striped: peek, one key", |bencher| {
        bencher.iter(|| map.peek(black_box(Key::client(7)), quota, 1_000));
    });
}

criterion_group!(benches, bucket, striped);
criterion_main!(benches);
