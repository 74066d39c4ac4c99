//! What the kernel makes of the rules as such: all that can be written is taken, others' changes are seen, and nothing
//! stays.

use crate::rig::{NODE, Rig, global, resources};
use anyhow::{Result, ensure};
use serval_tests::cloud::mac;
use serval_tests::require_rig;
use std::fmt::Write;
use std::time::Instant;

/// Endpoints without TAPs, so that there is a set to select from.
fn members(count: u16) -> String {
    (0..count).fold(String::new(), |mut text, n| {
        let _written = write!(text, "\"2001:db8:{:x}::{n:x}/128\", ", n % 7);
        text
    })
}

fn endpoint() -> String {
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {{name: vm1}}\n\
         spec: {{node: {NODE}, interfaceName: tap1, mac: 'fa:16:3e:00:00:01', ipNetworks: ['2001:db8:5e:1::1/128']}}\n"
    )
}

#[test]
fn everything_that_can_be_written_is_taken() -> Result<()> {
    require_rig!();
    let mut rig = Rig::new("nftall", &[("tap1", mac(1))])?;
    let set = format!(
        "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {{name: many, labels: {{many: 'yes'}}}}\n\
         spec: {{nets: [{}]}}\n",
        members(10_000)
    );
    let rules = "[{action: Log}, {action: Allow, source: {nets: ['::/0'], notNets: ['2001:db8::/32', '2001:db8::1/128']}}, \
         {action: Deny, protocol: TCP, destination: {ports: ['0:65535'], notPorts: [0, '1:5', '5:9', 65535]}}, \
         {action: Pass, notProtocol: UDP, source: {selector: many == 'yes'}}, \
         {action: Deny, protocol: ICMPv6, icmp: {type: 128, code: 0}, notICMP: {type: 3}}, \
         {action: Deny, source: {nets: ['8000::/1', '::/1']}}]";
    let tier =
        "---\napiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: first}\nspec: {order: 1}\n";
    let policies = global("all", &format!("{{ingress: {rules}, egress: {rules}}}"))
        + &global("first.all", &format!("{{tier: first, ingress: {rules}, egress: {rules}}}"));
    let all = resources(&[endpoint().as_str(), tier, &set, &policies].concat())?;
    let start = Instant::now();
    rig.load(&all)?;
    println!("10,000 members and two tiers: written in {:?}", start.elapsed());
    Ok(())
}

#[test]
fn a_thousand_endpoints_are_taken() -> Result<()> {
    require_rig!();
    let mut rig = Rig::new("nftmany", &[])?;
    let mut documents =
        global("all", "{ingress: [{action: Allow, protocol: TCP}], egress: [{action: Allow}]}");
    for n in 0..1_000 {
        write!(
            documents,
            "---\napiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {{name: vm{n}}}\n\
             spec: {{node: {NODE}, interfaceName: tap{n}, mac: 'fa:16:3e:00:00:01', ipNetworks: ['2001:db8:5e:1::{n:x}/128']}}\n"
        )?;
    }
    let ruleset =
        rig.ruleset_on(&resources(&documents)?, (0..1_000).map(|n| (format!("tap{n}"), 100 + n)))?;
    let (host, nftables) = (std::sync::Arc::clone(&rig.host), &mut rig.nftables);
    for what in ["written", "taken away", "written again"] {
        let start = Instant::now();
        let done = host.enter(|| {
            if what == "taken away" { Ok(nftables.remove()?) } else { Ok(nftables.apply(&ruleset)?) }
        })?;
        println!("1,000 endpoints: {what} in {:?}", start.elapsed());
        ensure!(done, "not {what}");
    }
    Ok(())
}

#[test]
fn many_tiers_are_not_nested() -> Result<()> {
    require_rig!();
    let mut rig = Rig::new("nfttiers", &[("tap1", mac(1))])?;
    let mut documents = endpoint();
    for n in 0..40 {
        write!(
            documents,
            "---\napiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {{name: t{n}}}\nspec: {{order: {n}, defaultAction: Pass}}\n"
        )?;
        documents += &global(
            &format!("t{n}.p"),
            &format!(
                "{{tier: t{n}, ingress: [{{action: Pass, protocol: TCP}}, {{action: Pass, protocol: UDP}}]}}"
            ),
        );
    }
    rig.load(&resources(&documents)?)
}

#[test]
fn others_changes_are_repaired_and_nothing_stays() -> Result<()> {
    require_rig!();
    let mut rig = Rig::new("nftdrift", &[("tap1", mac(1))])?;
    let resources = resources(&endpoint())?;
    let ruleset = rig.ruleset(&resources)?;
    let host = std::sync::Arc::clone(&rig.host);
    let nftables = &mut rig.nftables;
    let mut apply = |what: &str, wanted: bool| -> Result<()> {
        let written = host.enter(|| Ok(nftables.apply(&ruleset)?))?;
        ensure!(written == wanted, "{what}: written: {written}");
        Ok(())
    };
    apply("the first time", true)?;
    apply("the second time", false)?;
    let mut verify = |what: &str, wanted: bool| -> Result<()> {
        let repaired = host.enter(|| Ok(nftables.verify()?))?;
        ensure!(repaired == wanted, "{what}: repaired: {repaired}");
        Ok(())
    };
    verify("nobody was there", false)?;
    host.run("nft add rule ip6 serval ask accept")?;
    verify("a rule too many", true)?;
    host.run("nft flush chain ip6 serval forward")?;
    verify("rules too few", true)?;
    host.run("nft delete table ip6 serval")?;
    verify("no table", true)?;
    verify("all is repaired", false)?;
    let mut remove = |wanted: bool| -> Result<()> {
        let removed = host.enter(|| Ok(nftables.remove()?))?;
        ensure!(removed == wanted, "removed: {removed}");
        Ok(())
    };
    remove(true)?;
    remove(false)?;
    let left = host.run("nft list ruleset")?;
    ensure!(left.is_empty(), "{left}");
    Ok(())
}
