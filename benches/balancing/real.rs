//! tollgate, HAProxy and nginx in turns, before backends of this process whose times are scripted.

mod backends;
mod contender;
mod load;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use backends::{HEALTHY, Scripted, WORKERS};
use contender::{Contender, start};
use load::{Flood, load, p99, wait_until_it_serves};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// How many connections a client floods with.
const FLOOD: usize = 1_000;

/// Runs the cases of these names, or all, with this binary of tollgate.
pub(crate) fn run(binary: &str, cases: &[String]) -> Fallible<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let wanted = |name: &str| cases.is_empty() || cases.iter().any(|case| case == name);
    runtime.block_on(async {
        if wanted("one-slow") {
            one_slow(binary).await?;
        }
        if wanted("comes-back") {
            comes_back(binary).await?;
        }
        if wanted("fails-at-once") {
            fails_at_once(binary).await?;
        }
        if wanted("flood") {
            flood(binary).await?;
        }
        Ok(())
    })
}

async fn serving(name: &str, how: &str, binary: &str, backends: &[Scripted; 3]) -> Fallible<Contender> {
    let contender = start(name, how, binary, &backends.each_ref().map(|backend| backend.address))?;
    wait_until_it_serves(contender.address).await?;
    Ok(contender)
}

/// One backend of three is ten times slower; 70 % of what they can do together.
async fn one_slow(binary: &str) -> Fallible<()> {
    println!("one of three ten times slower (200 ms beside 20), 70 % load: p99 ms, failed, share of the slow one %");
    for (name, how) in [
        ("tollgate", "balance: least_time"),
        ("haproxy", "leastconn"),
        ("tollgate", "balance: least_connections"),
        ("nginx", "least_conn;"),
    ] {
        let backends = [Scripted::start(10 * HEALTHY)?, Scripted::start(HEALTHY)?, Scripted::start(HEALTHY)?];
        let contender = serving(name, how, binary, &backends).await?;
        load(contender.address, 294.0, 3.0).await;
        let before = backends.each_ref().map(Scripted::served);
        let took = load(contender.address, 294.0, 15.0).await;
        let (p99, failed) = p99(took.into_iter().map(|(_, took)| took));
        let served: Vec<_> = backends.iter().zip(before).map(|(after, before)| after.served() - before).collect();
        let share = served[0] as f64 * 100.0 / served.iter().sum::<usize>() as f64;
        println!("{:60} {p99:8.0} {failed:6} {share:6.1}", contender.name);
        backends.iter().for_each(Scripted::go);
    }
    Ok(())
}

/// One backend of three comes back cold: it takes 300 ms, and 20 after ten seconds.
async fn comes_back(binary: &str) -> Fallible<()> {
    println!("one of three comes back cold (300 ms, 20 after 10 s): p99 ms of the first ten seconds, failed");
    for (name, how) in [
        ("tollgate", "balance: round_robin, slow_start: 20s"),
        ("nginx", ""),
        ("tollgate", "balance: least_time, slow_start: 20s"),
        ("tollgate", "balance: round_robin"),
        ("haproxy", "roundrobin|slowstart 20s"),
    ] {
        let backends = Scripted::three()?;
        let contender = serving(name, how, binary, &backends).await?;
        load(contender.address, 200.0, 1.0).await;
        backends[0].go();
        load(contender.address, 200.0, 2.0).await;
        let script = Arc::clone(&backends[0].script);
        script.millis.store(300, Ordering::Relaxed);
        backends[0].come()?;
        // What looks for it every 200 ms or second has found it by then.
        load(contender.address, 50.0, 0.5).await;
        let warms = tokio::spawn(async move {
            for step in 0..100 {
                script.millis.store(300 - 280 * step / 100, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let took = load(contender.address, 200.0, 10.0).await;
        warms.abort();
        let (p99, failed) = p99(took.into_iter().map(|(_, took)| took));
        println!("{:60} {p99:8.0} {failed:6}", contender.name);
        backends.iter().for_each(Scripted::go);
    }
    Ok(())
}

/// One backend of three answers 500 at once from some moment on, and its checks go well.
async fn fails_at_once(binary: &str) -> Fallible<()> {
    println!("one of three answers 500 at once, 200 requests a second for 40 s: errors, of requests");
    for (name, how) in [
        ("tollgate", "outlier: {}"),
        ("haproxy", "roundrobin|observe layer7 error-limit 5 on-error mark-down inter 2s fall 3 rise 2"),
        ("haproxy", "roundrobin|observe layer7 on-error mark-down inter 2s fall 3 rise 2"),
        ("tollgate", "direct: false|outlier: {}"),
    ] {
        let backends = Scripted::three()?;
        let contender = serving(name, how, binary, &backends).await?;
        load(contender.address, 200.0, 1.0).await;
        backends[0].script.ill.store(true, Ordering::Relaxed);
        let took = load(contender.address, 200.0, 40.0).await;
        let (_, failed) = p99(took.iter().map(|(_, took)| *took));
        println!("{:90} {failed:6} {:6}", contender.name, took.len());
        backends.iter().for_each(Scripted::go);
    }
    Ok(())
}

/// A client floods a pool that holds as many requests as it may; what another one sees, beside what it sees alone.
async fn flood(binary: &str) -> Fallible<()> {
    println!("a flood over {FLOOD} connections: another client's p99 ms alone, then, failed; the flood's 200s, others");
    let bounded = format!("max_in_flight: {WORKERS}, queue: {{size: {FLOOD}, timeout: 1s}}");
    let by_loop = format!("direct: false|{bounded}");
    // Most of the flood is refused, and asks again at once.
    let refusing = bounded.replace(&format!("size: {FLOOD}"), &format!("size: {}", FLOOD / 10));
    let peer = format!("roundrobin|maxconn {WORKERS}");
    for (name, how) in
        [("tollgate", bounded.as_str()), ("haproxy", &peer), ("tollgate", &by_loop), ("tollgate", &refusing)]
    {
        let backends = Scripted::three()?;
        let contender = serving(name, how, binary, &backends).await?;
        let p99_of = async || p99(load(contender.address, 50.0, 20.0).await.into_iter().map(|(_, took)| took));
        let (alone, _) = p99_of().await;
        let flood = Flood::start(contender.address, FLOOD)?;
        load(contender.address, 50.0, 2.0).await;
        let (with, failed) = p99_of().await;
        let [well, otherwise] = flood.end();
        println!("{:90} {alone:6.0} {with:6.0} {failed:6} {well:8} {otherwise:8}", contender.name);
        backends.iter().for_each(Scripted::go);
    }
    Ok(())
}
