//! What the store takes: acknowledged creates a second with many writers and with one, and with an argument, a million
//! clients and a million buckets.
//!
//! `cargo bench --bench store` takes some 10 s; `cargo bench --bench store -- million` some minutes. The files are made
//! below `TOLLGATE_BENCH_DIR`, or else below `target`: a temporary directory may be in memory, where syncing costs
//! nothing.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tollgate::client::{ClientId, Quota};
use tollgate::clock::{Clock, SystemClock};
use tollgate::limit::{Bucket, Payer, Tokens};
use tollgate::store::sqlite::Sqlite;
use tollgate::store::{
    Batch, BatchItem, BucketStore, Change, ClientRepository, KeyChange, Moment, PageQuery, Profile, Refusal, Saved,
    Snapshot,
};

const MILLION: u64 = 1_000_000;
/// How many buckets are saved at once.
const PIECE: usize = 4_000;

fn main() {
    let directory = std::env::var_os("TOLLGATE_BENCH_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let directory = tempfile::tempdir_in(directory).expect("the directory is there");
    let million = std::env::args().any(|argument| argument == "million");
    for writers in [1, 8, 32, 128] {
        creates(&directory.path().join(format!("creates{writers}.db")), writers);
    }
    if million {
        clients(&directory.path().join("clients.db"));
        buckets(&directory.path().join("buckets.db"));
    }
}

/// Acknowledged creates a second. With one writer each has a transaction of its own.
fn creates(path: &Path, writers: u64) {
    let store = Sqlite::open(path).expect("it can be made");
    let (stop, made) = (AtomicBool::new(false), AtomicU64::new(0));
    let started = now();
    let mut slowest = Duration::ZERO;
    std::thread::scope(|scope| {
        let (store, stop, made) = (&store, &stop, &made);
        let threads: Vec<_> = (0..writers)
            .map(|writer| {
                scope.spawn(move || {
                    let mut slowest = Duration::ZERO;
                    for step in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let asked = now();
                        create(store, &format!("client-{writer}-{step}"));
                        slowest = slowest.max(asked.elapsed());
                        made.fetch_add(1, Ordering::Relaxed);
                    }
                    slowest
                })
            })
            .collect();
        // Parking may end early.
        while started.elapsed() < Duration::from_secs(2) {
            std::thread::park_timeout(Duration::from_secs(2).saturating_sub(started.elapsed()));
        }
        stop.store(true, Ordering::Relaxed);
        slowest = threads.into_iter().filter_map(|thread| thread.join().ok()).max().unwrap_or_default();
    });
    let rate = made.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64();
    println!("{writers:>4} writers: {rate:>8.0} acknowledged creates/s, the slowest took {slowest:.1?}");
}

fn clients(path: &Path) {
    let store = Sqlite::open(path).expect("it can be made");
    let items = || (0..MILLION).map(|number| item(&name(number), 100)).collect::<Vec<_>>();
    measure("dry run of a batch of 1 M new clients", || apply(&store, items(), true));
    measure("batch of 1 M new clients", || apply(&store, items(), false));
    measure("the same batch again: nothing changes", || apply(&store, items(), false));
    for (what, at) in [("at the start", 0), ("in the middle", MILLION / 2), ("at the end", MILLION - 200)] {
        let query = PageQuery { after: Some(id(&name(at))), limit: 100, search: String::new() };
        measure(&format!("page of 100 {what}"), || store.page(&query).expect("it reads").items.len());
    }
    for (what, text) in [("the first", "00777"), ("few found", "00777"), ("all found", "customer"), ("none", "nobody")]
    {
        let search = PageQuery { after: None, limit: 100, search: text.to_owned() };
        measure(&format!("search through 1 M clients, {what}"), || store.page(&search).expect("it reads").total);
    }
    measure("closing", || store.close());
    println!("{:>60}: {} MB", "the file is", std::fs::metadata(path).expect("it is there").len() / 1_000_000);
    let store = measure("opening, all pages checked", || Sqlite::open(path).expect("it is sound"));
    measure("reading all clients", || {
        let mut count = 0_u64;
        store
            .for_each(&mut |record| {
                count += u64::from(record.number > 0);
                true
            })
            .expect("it reads");
        assert_eq!(count, MILLION);
    });
    measure("1,000 creates by one writer beside 1 M", || {
        (0..1_000).for_each(|step| create(&store, &format!("x-{step}")))
    });
    let raised: Vec<_> = (0..MILLION).map(|number| item(&name(number), 200)).collect();
    measure("batch of 1 M changes", || apply(&store, raised, false));
    measure("batch that prunes all but one", || {
        let batch = Batch { prune: true, ..batch(vec![item(&name(0), 200)]) };
        store.apply(batch).wait_blocking().expect("it is fine").changes.len()
    });
}

fn buckets(path: &Path) {
    let store = Sqlite::open(path).expect("it can be made");
    let quota = Quota::new(100, 10.0).expect("within bounds");
    // Addresses come in no order.
    let saved = |number: u64, at: u64| Saved {
        payer: Payer::address(std::net::Ipv4Addr::from_bits((number as u32).wrapping_mul(0x9e37_79b1)).into(), 64),
        bucket: Bucket::resume(Tokens::from_parts(7, number), at),
        quota,
    };
    for (at, round) in [(1, "new, sorted"), (2, "changed, sorted"), (3, "changed, unsorted")] {
        let mut all: Vec<_> = (0..MILLION).map(|number| saved(number, at)).collect();
        if round.ends_with(", sorted") {
            all.sort_by_key(|saved| saved.payer);
        }
        let (mut slowest, mut beside) = (Duration::ZERO, Duration::ZERO);
        measure(&format!("saving 1 M buckets, {round}, {PIECE} at once"), || {
            for (index, piece) in all.chunks(PIECE).enumerate() {
                let moment = Moment { timeline: at, wall: at, boot: None };
                let asked = now();
                let saved = store.save(Snapshot::of(piece.to_vec(), vec![], moment));
                if index % 10 == 0 {
                    create(&store, &format!("client-{at}-{index}"));
                    beside = beside.max(asked.elapsed());
                }
                saved.wait_blocking().expect("it is fine");
                slowest = slowest.max(asked.elapsed());
            }
        });
        println!("{:>60}: {slowest:.1?}, a create beside it {beside:.1?}", "the slowest piece");
    }
    store.close();
    let store = measure("opening with 1 M buckets", || Sqlite::open(path).expect("it is sound"));
    let mut count = 0_u64;
    measure("loading 1 M buckets", || store.load(&mut |_| count += 1).expect("it reads"));
    assert_eq!(count, MILLION);
}

fn measure<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let started = now();
    let result = run();
    println!("{what:>60}: {:.3?}", started.elapsed());
    result
}

fn now() -> Instant {
    SystemClock.now()
}

fn name(number: u64) -> String {
    format!("customer-{number:07}")
}

fn id(name: &str) -> ClientId {
    ClientId::parse(name).expect("a name")
}

fn profile(capacity: u64) -> Profile {
    let quota = Quota::new(capacity, 10.0).expect("within bounds");
    Profile::new(quota)
}

fn create(store: &Sqlite, name: &str) {
    let edit = |before: Option<&tollgate::store::Record>| match before {
        Some(before) => Err(Refusal::Exists(before.id.clone())),
        None => Ok(Some(profile(100))),
    };
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let change =
        Change { id: id(name), by: "bench".to_owned(), at, rollback: false, local: false, edit: Box::new(edit) };
    store.change(change).wait_blocking().expect("it is new");
}

fn item(name: &str, capacity: u64) -> BatchItem {
    BatchItem { id: id(name), profile: profile(capacity), keys: KeyChange::Keep, of_plan: None }
}

fn batch(items: Vec<BatchItem>) -> Batch {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    Batch {
        items,
        prune: false,
        dry_run: false,
        local: false,
        by: "bench".to_owned(),
        at,
        progress: Default::default(),
    }
}

fn apply(store: &Sqlite, items: Vec<BatchItem>, dry_run: bool) -> usize {
    let batch = Batch { dry_run, ..batch(items) };
    store.apply(batch).wait_blocking().expect("it is fine").changes.len()
}
