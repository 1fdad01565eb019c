// What each message between daemons means, and the peers and sessions that follow from it.
#include <algorithm>

#include "fabric/host_agent.h"

namespace tbt::fabric {
namespace {

constexpr uint8_t kNoPeer = 0xff;

const char* refuse_reason_text(uint16_t reason) noexcept {
  switch (reason) {
    case wire::kRefuseVersion:
      return "it speaks another version of the protocol";
    case wire::kRefuseSelf:
      return "both ends of the cable are the same host";
    case wire::kRefuseDuplicateLid:
      return "two hosts have the same LID";
    default:
      return "no reason that we know";
  }
}

PortEntry entry_of(const wire::PortIdentity& port) noexcept {
  PortEntry entry;
  entry.lid = port.lid;
  entry.cable = port.cable;
  entry.gid_count = static_cast<uint8_t>(std::min(port.gids.size(), entry.gids.size()));
  std::copy_n(port.gids.begin(), entry.gid_count, entry.gids.begin());
  return entry;
}

bool share_a_lid(const std::array<PortEntry, wire::kPortsMax>& ours,
                 const std::vector<wire::PortIdentity>& theirs) noexcept {
  return std::any_of(ours.begin(), ours.end(), [&theirs](const PortEntry& entry) {
    return entry.lid != 0 && std::any_of(theirs.begin(), theirs.end(), [&entry](const auto& port) {
             return port.lid == entry.lid;
           });
  });
}

const char* link_state_text(LinkState state) noexcept {
  switch (state) {
    case LinkState::kDown:
      return "down";
    case LinkState::kUnplugged:
      return "unplugged";
    case LinkState::kConnecting:
      return "connecting";
    case LinkState::kUp:
      return "up";
    case LinkState::kSilent:
      return "silent";
  }
  return "?";
}

}  // namespace

// ---- what each message means

void HostAgent::on(Instant now, uint32_t cable, uint32_t /*tag*/, const wire::Hello& hello) {
  Link& link = links_[cable];
  if (const uint16_t reason = refusal_of(hello); reason != 0) {
    stats_.refused++;
    send(cable, kHandshakeTag, wire::Refuse{wire::kProtocolVersion, reason});
    if (!link.refused)
      log(true, "refused a hello on " + cable_text(cable) + ": " + refuse_reason_text(reason));
    link.refused = true;
    return;
  }
  const uint8_t peer = learn_peer(hello);
  if (peer == kNoPeer || directory_.peers[peer].gone) {
    stats_.stale++;
    return;
  }
  link.refused = false;
  join(cable, peer, hello);
  // The answer goes first: what we send under the session's tag must find the peer knowing us.
  if (!hello.reply) send_hello(now, cable, /*reply=*/true);
  if (hello.peer_incarnation == incarnation_) {
    confirm(now, cable);
  } else {
    repeat_departures(now);  // what we said meanwhile, it has not believed
  }
}

void HostAgent::on(Instant now, uint32_t cable, uint32_t /*tag*/, const wire::Refuse& refuse) {
  Link& link = links_[cable];
  if (directory_.links[cable].state == LinkState::kUp) return;  // late, or not from our peer
  link.next_send = now + kRefusedInterval;
  if (!link.refused) {
    log(true, "the host at the other end of " + cable_text(cable) +
                  " refuses us: " + refuse_reason_text(refuse.reason));
  }
  link.refused = true;
  set_state(cable, LinkState::kDown, "refused");
}

void HostAgent::on(Instant now, uint32_t cable, uint32_t tag, const wire::Heartbeat& heartbeat) {
  if (!in_session(cable, tag) || heartbeat.incarnation != links_[cable].peer_incarnation) {
    stats_.stale++;
    return;
  }
  Link& link = links_[cable];
  confirm(now, cable);
  if (!heartbeat.reply) {
    send(cable, tag, wire::Heartbeat{incarnation_, heartbeat.sequence, true});
  } else if (link.unanswered != 0 && link.sequence - heartbeat.sequence < kHeartbeatsRemembered) {
    link.unanswered = 0;
    link.next_send = std::max(now, link.unanswered_since + kHeartbeatInterval);
  }
}

void HostAgent::on(Instant /*now*/, uint32_t cable, uint32_t tag, const wire::Bye& bye) {
  if (!in_session(cable, tag) || bye.incarnation != links_[cable].peer_incarnation) {
    stats_.stale++;
    return;
  }
  retire_peer(directory_.links[cable].peer);
}

void HostAgent::on(Instant now, uint32_t cable, uint32_t tag, const wire::ProcessGone& gone) {
  if (!in_session(cable, tag)) {
    stats_.stale++;
    return;
  }
  confirm(now, cable);
  // The LID is the session's, whatever the message says: a peer can speak for its own processes
  // only.
  const uint16_t lid = directory_.peers[directory_.links[cable].peer].ports[0].lid;
  record_gone({lid, gone.slot, gone.first, gone.count});
}

// ---- peers and sessions

uint16_t HostAgent::refusal_of(const wire::Hello& hello) const {
  if (hello.uuid == uuid_) return wire::kRefuseSelf;
  if (share_a_lid(directory_.ports, hello.ports)) return wire::kRefuseDuplicateLid;
  for (size_t i = 0; i < kPeersMax; i++) {
    const PeerEntry& peer = directory_.peers[i];
    const bool other = peer.known && !peer.gone && peer.uuid != hello.uuid;
    if (other && share_a_lid(peer.ports, hello.ports)) return wire::kRefuseDuplicateLid;
  }
  return 0;
}

uint8_t HostAgent::find_peer(uint64_t incarnation) const {
  for (uint8_t i = 0; i < kPeersMax; i++) {
    const PeerEntry& peer = directory_.peers[i];
    if (peer.known && peer.incarnation == incarnation) return i;
  }
  return kNoPeer;
}

// Finds or makes the entry of this incarnation of the peer; an earlier one of the same host is
// retired.
uint8_t HostAgent::learn_peer(const wire::Hello& hello) {
  if (const uint8_t found = find_peer(hello.incarnation); found != kNoPeer) {
    if (directory_.peers[found].uuid != hello.uuid) return kNoPeer;
    learn_ports(hello, directory_.peers[found]);
    return found;
  }
  uint8_t free_entry = kNoPeer;
  for (uint8_t i = 0; i < kPeersMax; i++) {
    PeerEntry& peer = directory_.peers[i];
    if (peer.known && !peer.gone && peer.uuid == hello.uuid) retire_peer(i);
    if (free_entry == kNoPeer && !peer.known) free_entry = i;
  }
  for (uint8_t i = 0; i < kPeersMax && free_entry == kNoPeer; i++) {
    if (directory_.peers[i].gone) free_entry = i;
  }
  if (free_entry == kNoPeer) return kNoPeer;
  PeerEntry& peer = directory_.peers[free_entry];
  peer = {};
  peer.known = true;
  peer.incarnation = hello.incarnation;
  peer.uuid = hello.uuid;
  set_name(peer.name, hello.host_name);
  learn_ports(hello, peer);
  changed_ = true;
  log(false, "heard of " + hello.host_name);
  return free_entry;
}

// Its GIDs may change while it lives.
void HostAgent::learn_ports(const wire::Hello& hello, PeerEntry& peer) {
  const size_t ports = std::min(hello.ports.size(), peer.ports.size());
  for (size_t i = 0; i < ports; i++) {
    const PortEntry entry = entry_of(hello.ports[i]);
    changed_ |= entry.lid != peer.ports[i].lid || entry.gids != peer.ports[i].gids;
    peer.ports[i] = entry;
  }
}

// The peer's incarnation is over: nothing of it is believed any more, its links start anew.
void HostAgent::retire_peer(uint8_t peer) {
  directory_.peers[peer].gone = true;
  changed_ = true;
  log(false, std::string(directory_.peers[peer].name.data()) + " is gone");
  for (uint32_t k = 0; k < links_.size(); k++) {
    if (directory_.links[k].peer != peer) continue;
    links_[k].peer_incarnation = 0;
    links_[k].hellos = kFastHellos;
    directory_.links[k].peer = kNoPeer;
    directory_.links[k].tag = 0;
    if (directory_.links[k].state != LinkState::kUnplugged) {
      set_state(k, LinkState::kDown, "the peer is gone");
    }
  }
}

void HostAgent::join(uint32_t cable, uint8_t peer, const wire::Hello& hello) {
  CableEntry& entry = directory_.links[cable];
  const uint32_t tag = wire::session_tag(incarnation_, hello.incarnation);
  links_[cable].peer_incarnation = hello.incarnation;
  if (entry.peer == peer && entry.peer_cable == hello.cable && entry.tag == tag) return;
  if (entry.state == LinkState::kUp) set_state(cable, LinkState::kConnecting, "another peer");
  entry.peer = peer;
  entry.peer_cable = hello.cable;
  entry.tag = tag;
  changed_ = true;
}

bool HostAgent::in_session(uint32_t cable, uint32_t tag) {
  return links_[cable].peer_incarnation != 0 && directory_.links[cable].tag == tag;
}

void HostAgent::watch_silence(Instant now, uint32_t cable) {
  Link& link = links_[cable];
  const LinkState state = directory_.links[cable].state;
  if (state == LinkState::kUp && link.unanswered >= kHeartbeatMisses &&
      now - link.unanswered_since >= kSilentAfter) {
    set_state(cable, LinkState::kSilent, "the peer does not answer");
    link.silent_since = now;
    link.hellos = kFastHellos;
  } else if (state == LinkState::kSilent && now - link.silent_since >= kSilenceMost) {
    set_state(cable, LinkState::kDown, "the peer has not answered for too long");
  }
}

// The peer is known to know us.
void HostAgent::confirm(Instant now, uint32_t cable) {
  if (directory_.links[cable].state == LinkState::kUp) return;
  Link& link = links_[cable];
  link.unanswered = 0;
  link.hellos = 0;
  set_state(cable, LinkState::kUp, "");
  send_heartbeat(now, cable);  // proof to the peer, which may still be waiting for one
}

void HostAgent::set_state(uint32_t cable, LinkState state, const char* why) {
  CableEntry& entry = directory_.links[cable];
  if (entry.state == state) return;
  std::string text =
      cable_text(cable) + ": " + link_state_text(entry.state) + " -> " + link_state_text(state);
  if (*why != '\0') text += std::string(", ") + why;
  const bool lost = state != LinkState::kUp && state != LinkState::kConnecting;
  log(lost, std::move(text));
  entry.state = state;
  changed_ = true;
  // Whoever is at the other end must be heard anew before our hello may claim to know it.
  if (lost) links_[cable].peer_incarnation = 0;
}

// Whoever has heard of them counts them as repetitions.
void HostAgent::repeat_departures(Instant now) {
  const uint64_t again = std::min<uint64_t>({directory_.gone_count, kGoneMax, kGoneAgain});
  for (uint64_t i = directory_.gone_count - again; i < directory_.gone_count; i++) {
    const GoneEntry& gone = directory_.gone[i % kGoneMax];
    if (gone.lid != directory_.ports[0].lid) continue;
    std::erase_if(gone_news_, [&gone](const GoneNews& news) {
      return news.message.slot == gone.slot && news.message.first == gone.first;
    });
    gone_news_.push_back({{gone.slot, gone.first, gone.count, gone.lid}, kGoneRepeats, now});
  }
}

void HostAgent::record_gone(const GoneEntry& entry) {
  const uint64_t kept = std::min<uint64_t>(directory_.gone_count, kGoneMax);
  for (uint64_t i = 0; i < kept; i++) {
    const GoneEntry& old = directory_.gone[(directory_.gone_count - 1 - i) % kGoneMax];
    const bool same_process = old.lid == entry.lid && old.slot == entry.slot;
    if (same_process && old.first == entry.first && old.count == entry.count)
      return;  // a repetition
  }
  directory_.gone[directory_.gone_count % kGoneMax] = entry;
  directory_.gone_count++;
  changed_ = true;
}

}  // namespace tbt::fabric
