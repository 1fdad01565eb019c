#include "rail/emulated/dma_engine.h"

#include <algorithm>
#include <cstring>

#include "rail/nhi/interrupts.h"
#include "sys/barrier.h"
#include "sys/event_fd.h"
#include "sys/monotonic_clock.h"

namespace tbt::rail::emulated {

using nhi::Descriptor;

namespace {

constexpr uint32_t kRawBytesMax = 256;
constexpr size_t kWarmBytes = 128;  // headers and a small payload
constexpr int kBlindMax = 3;
constexpr int kBusySpins = 64;
constexpr uint32_t kBusyMax = 1024;

uint16_t next_of(uint16_t index, uint32_t size) noexcept {
  return static_cast<uint16_t>(index + 1u == size ? 0 : index + 1u);
}

bool is_on(const Register& reg, uint32_t bits) noexcept {
  return (reg.load(std::memory_order_acquire) & bits) != 0;
}

}  // namespace

// Status first, then mask. Who arms does it the other way round (enable, clear status, look at the
// ring), so either the frame is seen there, or the bit goes from 0 to 1 here with the mask enabled.
// The caller has just done an atomic exchange (unlock), so its descriptor is visible before the
// status is read.
void raise_interrupt(const HostView& host, uint32_t bit, bool announced) noexcept {
  NhiSilicon& nhi = *host.nhi;
  const uint32_t mask = 1u << (bit % 32);
  const bool auto_clear = is_on(nhi.dma_misc, nhi::kDmaMiscAutoClear);
  Register& status = nhi.status[bit / 32];
  if (!announced && (status.load(std::memory_order_seq_cst) & mask) != 0) return;
  if ((status.fetch_or(mask, std::memory_order_seq_cst) & mask) != 0 && !announced) return;
  if (bit / 32 >= nhi.mask.size()) return;  // an overflow, which nothing can enable
  if ((nhi.mask[bit / 32].load(std::memory_order_seq_cst) & mask) == 0) return;
  if (auto_clear) status.fetch_and(~mask, std::memory_order_seq_cst);
  nhi.interrupts.fetch_add(1, std::memory_order_relaxed);
  const uint32_t vector = nhi.vectors[bit / 8].load(std::memory_order_relaxed) >> bit % 8 * 4 & 0xf;
  if (host.guest != nullptr) {
    host.guest->fire(vector);
  } else if (vector == nhi::kDaemonVector) {
    if (host.interrupt_fd >= 0) sys::signal_eventfd(host.interrupt_fd);
  } else if (host.memory != nullptr) {
    host.memory->wake_for_interrupt();
  }
}

// A model whose holder stands still (a stopped process) is done without: the frame passes as it is.
// A dead holder has left one that is as good as any.
Verdict decide_on(DirectionSilicon& direction, int64_t now_ns, uint32_t bytes,
                  const CableParams& params) noexcept {
  Verdict verdict;
  verdict.arrival_ns = now_ns;
  if (direction.lock.lock_within(kStandstillNs) == sys::LockOutcome::kBusy) return verdict;
  verdict = direction.model.decide(now_ns, bytes, params);
  direction.lock.unlock_fast();
  return verdict;
}

// ---- running

// A live holder does our work too. A dead one does not: its pulse is felt now and then, and always
// after a death.
bool DmaEngine::enter(Care care) noexcept {
  sys::LockOutcome outcome = flow_.lock.try_lock();
  // The doorbell is visible before we look again: a runner that has not left by then will see it.
  if (outcome == sys::LockOutcome::kBusy) sys::full_barrier();
  for (int i = 0; outcome == sys::LockOutcome::kBusy && i < kBusySpins; ++i) {
    sys::cpu_relax();
    outcome = flow_.lock.try_lock();
  }
  if (outcome == sys::LockOutcome::kBusy) {
    const uint32_t busy = busy_.fetch_add(1, std::memory_order_relaxed) + 1;
    if (care == Care::kUsual && busy % kBusyMax != 0) return false;
    outcome = flow_.lock.try_lock_or_recover();
  }
  if (outcome == sys::LockOutcome::kOwnerDied) recover();
  return outcome != sys::LockOutcome::kBusy;
}

DmaEngine::Ring DmaEngine::ring_of(const HostView& host, const RingRegisters& regs,
                                   FoundRing& found) noexcept {
  if (!is_on(regs.options, nhi::kOptionEnable) || !host.is_visible()) return {};
  if (host.nhi->removed.load(std::memory_order_relaxed) != 0) return {};
  const uint64_t base = uint64_t{regs.base_high.load(std::memory_order_relaxed)} << 32 |
                        regs.base_low.load(std::memory_order_relaxed);
  const uint32_t size = regs.size.load(std::memory_order_relaxed);
  const uint32_t mappings = host.nhi->iova_generation.load(std::memory_order_acquire);
  const bool same = found.host == &host && found.base == base && found.ring.size == size &&
                    found.memory == host.base;
  if (same && found.mappings == mappings) return found.ring;
  auto* at = reinterpret_cast<Descriptor*>(translate(host, base, size * sizeof(Descriptor)));
  if (at == nullptr) return {};
  found = {&host, base, host.base, mappings, {at, size}};
  return found.ring;
}

void DmaEngine::find_way(Pass& pass) const noexcept {
  const Route way = route();
  if (way.state == Route::State::kNone) return;
  pass.cable = &fabric_.lines[way.cable];
  pass.direction = way.b_to_a != 0 ? &pass.cable->b_to_a : &pass.cable->a_to_b;
  if (way.state == Route::State::kOpen) pass.to = {hosts_ + way.host, way.hop};
}

void DmaEngine::run_at(int64_t now_ns, Care care, uint32_t budget) noexcept {
  Stop stop;
  Pass pass;
  int blind = 0;
  do {
    if (!enter(care)) return;
    pass = {};
    pass.now_ns = now_ns;
    pass.budget = budget;
    stop = progress(pass);
    budget = pass.budget;
    flow_.lock.unlock();
    fire(pass);
    if (pass.tx_interrupt) raise_interrupt(*from_.host, from_.hop);
    // A receive ring may have come up meanwhile, so look again; but one whose memory is not mapped
    // never will.
    const bool no_ring = stop == Stop::kStalled && pass.rx.descriptors == nullptr;
    if (no_ring && ++blind > kBlindMax) return;
  } while (budget != 0 && more_work(pass, stop));
  poke_guests(pass);
}

// As on silicon, the status is there when the completion is, though the interrupt comes later: who
// sees a frame without its status knows that there will be no interrupt. So the bit is set before
// the completion is written. It goes from 0 to 1 once: `unfired` tells whoever comes by after us,
// should we be killed in between.
void DmaEngine::announce(Pass& pass) noexcept {
  pass.rx_interrupt = true;
  const uint32_t bit = fabric_.hop_count + pass.to.hop;
  const uint32_t mask = 1u << (bit % 32);
  Register& status = pass.to.host->nhi->status[bit / 32];
  if ((status.load(std::memory_order_seq_cst) & mask) != 0) return;
  flow_.unfired.store(1, std::memory_order_seq_cst);
  status.fetch_or(mask, std::memory_order_seq_cst);
}

// Only who can: a virtual machine's interrupt is for the process that plays its host.
void DmaEngine::fire(const Pass& pass) noexcept {
  if (pass.to.host == nullptr || !pass.to.host->is_visible()) return;
  const bool announced = flow_.unfired.load(std::memory_order_seq_cst) != 0 &&
                         flow_.unfired.exchange(0, std::memory_order_seq_cst) != 0;
  if (pass.rx_interrupt || announced) {
    raise_interrupt(*pass.to.host, fabric_.hop_count + pass.to.hop, announced);
  }
}

// What this process cannot do, because it does not see the memory of a virtual machine, it asks the
// other one to do.
void DmaEngine::poke_guests(const Pass& pass) const noexcept {
  if (pass.cable == nullptr) return;
  const Indices at = indices();
  const bool to_guest = pass.to.host != nullptr && !pass.to.host->is_visible();
  if (to_guest && at.queue_in != at.queue_out) sys::signal_eventfd(pass.to.host->interrupt_fd);
  const bool waits = tx_regs().index.load(std::memory_order_acquire) != at.tx;
  if (waits && !from_.host->is_visible()) sys::signal_eventfd(from_.host->interrupt_fd);
}

DmaEngine::Stop DmaEngine::progress(Pass& pass) noexcept {
  find_way(pass);
  pass.tx = ring_of(*from_.host, tx_regs(), found_tx_);
  const bool carries =
      pass.cable != nullptr && pass.cable->plugged.load(std::memory_order_acquire) != 0;
  if (!carries) return lose_everything(pass);
  const bool open = pass.to.host != nullptr;
  if (open) pass.rx = ring_of(*pass.to.host, rx_regs(pass.to), found_rx_);
  const Indices at = indices();
  const bool at_once =
      pass.cable->ideal.load(std::memory_order_relaxed) != 0 && at.queue_in == at.queue_out;
  const bool seen = from_.host->is_visible() && (!open || pass.to.host->is_visible());
  return at_once && seen ? pass_directly(pass) : pass_over_cable(pass);
}

bool DmaEngine::more_work(const Pass& pass, Stop stop) const noexcept {
  const Indices at = indices();
  switch (stop) {
    case Stop::kIdle:
      return tx_regs().index.load(std::memory_order_seq_cst) != at.tx &&
             is_on(tx_regs().options, nhi::kOptionEnable) && from_.host->is_visible() &&
             from_.host->nhi->removed.load(std::memory_order_relaxed) == 0;
    case Stop::kStalled:
      return !is_stuck() && pass.to.host != nullptr && pass.to.host->is_visible() &&
             rx_regs(pass.to).primed.load(std::memory_order_relaxed) != 0 &&
             pass.to.host->nhi->removed.load(std::memory_order_relaxed) == 0 &&
             rx_regs(pass.to).index.load(std::memory_order_seq_cst) != at.rx;
    case Stop::kCableFull:
    case Stop::kOff:
      return false;
  }
  return false;
}

// ---- from ring to ring: the ideal cable

DmaEngine::Stop DmaEngine::pass_directly(Pass& pass) noexcept {
  if (pass.tx.descriptors == nullptr) return Stop::kOff;
  Indices at = indices();
  while (next_sent(pass, at)) {
    Frame frame;
    const uint16_t sent = at.tx;
    Indices after = at;
    after.tx = next_of(at.tx, pass.tx.size);
    if (!fetch(pass, sent, frame)) {
      commit(after);
    } else if (!deliver(pass, frame, after)) {
      if (stall(pass, at)) return Stop::kStalled;
      continue;
    }
    complete_tx(pass.tx, sent);
    at = indices();
  }
  if (flow_.stalled.load(std::memory_order_relaxed) != 0) {
    flow_.stalled.store(0, std::memory_order_seq_cst);
  }
  warm_up_next(pass, at);
  return Stop::kIdle;
}

// The next frame's buffer was last touched by the receiver's processor. Fetching its first lines
// now, while nobody waits, takes one trip between the processors off the next frame's time.
void DmaEngine::warm_up_next(const Pass& pass, const Indices& at) noexcept {
  if (pass.rx.descriptors == nullptr) return;
  if (rx_regs(pass.to).index.load(std::memory_order_relaxed) == at.rx) return;
  const uint64_t address = pass.rx.descriptors[at.rx].address.load(std::memory_order_relaxed);
  const std::byte* next = find_mapped(*pass.to.host, address, kWarmBytes);
  if (next == nullptr) return;
  for (size_t line = 0; line < kWarmBytes; line += 64) __builtin_prefetch(next + line, 1);
}

// Announces that frames wait, and looks again: the receiver posts first and then looks at
// `stalled`.
bool DmaEngine::stall(const Pass& pass, const Indices& at) noexcept {
  flow_.stalled.store(1, std::memory_order_seq_cst);
  return room(pass, at) == Room::kWait;
}

// ---- over a cable with a rate, a latency or faults

DmaEngine::Stop DmaEngine::pass_over_cable(Pass& pass) noexcept {
  if (pass.now_ns == kNoTime) pass.now_ns = sys::monotonic_now().ns;
  for (;;) {
    const uint64_t before = flow_.indices.load(std::memory_order_relaxed);
    const Stop in = take_in(pass);
    const Stop out = bring_out(pass);
    if (out == Stop::kStalled) return out;
    if (flow_.indices.load(std::memory_order_relaxed) == before) return in;
  }
}

// From the transmit ring onto the cable, while there is room for a frame and its duplicate.
DmaEngine::Stop DmaEngine::take_in(Pass& pass) noexcept {
  if (pass.tx.descriptors == nullptr) return Stop::kOff;
  const CableParams current = load_params(*pass.cable);
  Indices at = indices();
  while (next_sent(pass, at)) {
    if (static_cast<uint16_t>(at.queue_in - at.queue_out) + 2 > kQueueSlots)
      return Stop::kCableFull;
    Frame frame;
    const uint16_t sent = at.tx;
    at.tx = next_of(at.tx, pass.tx.size);
    if (fetch(pass, sent, frame)) {
      const Verdict verdict = decide_on(*pass.direction, pass.now_ns, frame.length, current);
      if (!verdict.drop) put_on_cable(frame, verdict, at);
    }
    commit(at);
    complete_tx(pass.tx, sent);
  }
  return Stop::kIdle;
}

void DmaEngine::put_on_cable(const Frame& frame, const Verdict& verdict, Indices& next) noexcept {
  for (int copies = verdict.duplicate ? 2 : 1; copies > 0; --copies) {
    QueueSlot& slot = queue_[next.queue_in++ % kQueueSlots];
    slot.arrival_ns = verdict.arrival_ns;
    slot.length = frame.length;
    slot.sof = frame.sof;
    slot.eof = frame.eof;
    slot.damaged = verdict.corrupt;
    slot.lost_interrupt = verdict.lost_interrupt;
    slot.stranded = verdict.stranded;
    std::memcpy(slot.data, frame.data, frame.length);
    if (verdict.corrupt)
      slot.data[verdict.corrupt_bit / 8] ^= std::byte(1u << verdict.corrupt_bit % 8);
  }
}

// A stranded completion is late by itself; a frame that has arrived after it brings it out.
int64_t DmaEngine::due_ns(const Indices& at, int64_t now_ns) const noexcept {
  const QueueSlot& slot = queue_[at.queue_out % kQueueSlots];
  if (!slot.stranded) return slot.arrival_ns;
  const auto next = static_cast<uint16_t>(at.queue_out + 1);
  if (next != at.queue_in) {
    const int64_t pushed = queue_[next % kQueueSlots].arrival_ns;
    if (pushed <= now_ns) return pushed;
  }
  return slot.arrival_ns + kStrandedNs;
}

// From the cable into the receive ring: what is due.
DmaEngine::Stop DmaEngine::bring_out(Pass& pass) noexcept {
  Indices at = indices();
  if (pass.to.host != nullptr && !pass.to.host->is_visible()) return Stop::kOff;
  while (at.queue_in != at.queue_out && due_ns(at, pass.now_ns) <= pass.now_ns) {
    const QueueSlot& slot = queue_[at.queue_out % kQueueSlots];
    const Frame frame{slot.data, slot.length,  slot.sof,
                      slot.eof,  slot.damaged, slot.lost_interrupt};
    Indices after = at;
    ++after.queue_out;
    if (!deliver(pass, frame, after) && stall(pass, at)) return Stop::kStalled;
    at = indices();
  }
  if (flow_.stalled.load(std::memory_order_relaxed) != 0) {
    flow_.stalled.store(0, std::memory_order_seq_cst);
  }
  return Stop::kIdle;
}

int64_t DmaEngine::advance(int64_t now_ns) noexcept {
  if (!is_idle()) run_at(now_ns, Care::kUsual);
  const Indices left = indices();
  if (left.queue_in == left.queue_out) return INT64_MAX;
  if (flow_.stalled.load(std::memory_order_relaxed) != 0) return INT64_MAX;  // posting goes on
  if (flow_.lock.try_lock() != sys::LockOutcome::kTaken) return now_ns;      // somebody is at it
  const Indices at = indices();
  const int64_t due = at.queue_in == at.queue_out ? INT64_MAX : due_ns(at, now_ns);
  flow_.lock.unlock();
  return due;
}

bool DmaEngine::is_idle() const noexcept {
  if (flow_.lock.is_locked()) return false;
  const Indices at = indices();
  if (at.queue_in != at.queue_out) return false;
  return !is_on(tx_regs().options, nhi::kOptionEnable) ||
         tx_regs().index.load(std::memory_order_acquire) == at.tx;
}

// The cable is pulled: nothing completes at the other end, and the sender's frames go nowhere.
DmaEngine::Stop DmaEngine::lose_everything(Pass& pass) noexcept {
  Indices at = indices();
  uint64_t lost = static_cast<uint16_t>(at.queue_in - at.queue_out);
  at.queue_out = at.queue_in;
  commit(at);
  while (pass.tx.descriptors != nullptr && next_sent(pass, at)) {
    const uint16_t sent = at.tx;
    at.tx = next_of(at.tx, pass.tx.size);
    commit(at);
    complete_tx(pass.tx, sent);
    ++lost;
  }
  if (pass.direction != nullptr &&
      pass.direction->lock.lock_within(kStandstillNs) != sys::LockOutcome::kBusy) {
    pass.direction->model.reset();
    pass.direction->lock.unlock_fast();
  }
  flow_.stalled.store(0, std::memory_order_relaxed);
  flow_.stuck.store(0, std::memory_order_relaxed);
  from_.host->nhi->unreachable.fetch_add(lost, std::memory_order_relaxed);
  return pass.tx.descriptors != nullptr ? Stop::kIdle : Stop::kOff;
}

// ---- single frames

// False: the frame could not be read and is not sent; its descriptor completes all the same.
bool DmaEngine::fetch(Pass& pass, uint32_t index, Frame& frame) noexcept {
  Descriptor& d = pass.tx.descriptors[index];
  const uint32_t word = d.word.load(std::memory_order_acquire);
  NhiSilicon& nhi = *from_.host->nhi;
  if ((word & nhi::kPosted) == 0) {
    count_misuse(nhi, Misuse::kNotPosted);
    return false;
  }
  if ((word & nhi::kRequestInterrupt) != 0) pass.tx_interrupt = true;
  frame.length = nhi::word_length(word);
  frame.sof = nhi::word_sof(word);
  frame.eof = nhi::word_eof(word);
  if (is_on(tx_regs().options, nhi::kOptionRaw) && frame.length > kRawBytesMax) {
    count_misuse(nhi, Misuse::kRawTooLong);
    return false;
  }
  frame.data =
      translate(*from_.host, d.address.load(std::memory_order_relaxed), frame.length, Reach::kRead);
  return frame.data != nullptr;
}

void DmaEngine::complete_tx(const Ring& ring, uint32_t index) noexcept {
  std::atomic<uint32_t>& word = ring.descriptors[index].word;
  word.store(word.load(std::memory_order_relaxed) | nhi::kCompleted, std::memory_order_release);
}

bool DmaEngine::is_allowed(const End& to, const Frame& frame) noexcept {
  if (is_on(rx_regs(to).options, nhi::kOptionRaw)) return true;
  const uint32_t masks = rx_regs(to).pdf_masks.load(std::memory_order_relaxed);
  return (masks >> 16 >> frame.sof & 1) != 0 && (masks >> frame.eof & 1) != 0;
}

// Whether the receive ring can take a frame. With end-to-end flow control the sender waits, also
// for a ring that is not enabled or has never had a buffer; without it the frame is lost.
DmaEngine::Room DmaEngine::room(const Pass& pass, const Indices& at) noexcept {
  const bool tx_e2e = fabric_.e2e && is_on(tx_regs().options, nhi::kOptionE2e);
  const bool enabled = pass.rx.descriptors != nullptr;
  if (!enabled || rx_regs(pass.to).primed.load(std::memory_order_acquire) == 0) {
    return tx_e2e ? Room::kWait : Room::kLost;
  }
  const RingRegisters& rx = rx_regs(pass.to);
  if (is_stuck()) return Room::kWait;
  if (rx.index.load(std::memory_order_seq_cst) != at.rx) return Room::kReady;
  if (!tx_e2e || !is_on(rx.options, nhi::kOptionE2e)) return Room::kLost;
  if (fabric_.e2e_sticks) flow_.stuck.store(1, std::memory_order_relaxed);
  return Room::kWait;
}

// False: the frame has to wait. Otherwise it is delivered or lost, and `after` is committed.
bool DmaEngine::deliver(Pass& pass, const Frame& frame, Indices after) noexcept {
  const Room there = room(pass, after);
  if (there == Room::kWait) return false;
  if (there == Room::kLost) {
    lose(pass, after);
    return true;
  }
  if (!is_allowed(pass.to, frame)) {
    pass.to.host->nhi->pdf_drops.fetch_add(1, std::memory_order_relaxed);
    commit(after);
    return true;
  }
  write_frame(pass, frame, after);
  return true;
}

void DmaEngine::lose(const Pass& pass, const Indices& after) noexcept {
  if (pass.rx.descriptors != nullptr) {
    pass.to.host->nhi->overruns.fetch_add(1, std::memory_order_relaxed);
    flow_.overrun = 1;
    raise_interrupt(*pass.to.host, 2 * fabric_.hop_count + pass.to.hop);
  } else {
    const HostView& counts = pass.to.host != nullptr ? *pass.to.host : *from_.host;
    counts.nhi->unreachable.fetch_add(1, std::memory_order_relaxed);
  }
  commit(after);
}

// Payload, journal, status, completion, commit. Killed after the journal, the completion is done
// again by recover(): it succeeds only if the descriptor still has the word that was replaced, so
// it happens once.
void DmaEngine::write_frame(Pass& pass, const Frame& frame, Indices after) noexcept {
  Descriptor& d = pass.rx.descriptors[after.rx];
  const uint32_t old_word = d.word.load(std::memory_order_acquire);
  if ((old_word & nhi::kPosted) == 0 || (old_word & nhi::kCompleted) != 0) {
    count_misuse(*pass.to.host->nhi, Misuse::kNotPosted);
    return commit(after);
  }
  std::byte* data =
      translate(*pass.to.host, d.address.load(std::memory_order_relaxed), frame.length);
  if (data == nullptr) return commit(after);
  std::memcpy(data, frame.data, frame.length);
  uint32_t word = nhi::pack_frame(frame.length, frame.sof, frame.eof) | nhi::kCompleted;
  if (frame.damaged && !is_on(rx_regs(pass.to).options, nhi::kOptionRaw)) word |= nhi::kCrcError;
  if (flow_.overrun != 0) word |= nhi::kBufferOverrun;
  flow_.overrun = 0;
  after.rx = next_of(after.rx, pass.rx.size);
  flow_.journal_after = after.pack();
  flow_.journal_old_word = old_word;
  flow_.journal_new_word = word;
  flow_.journal_before.store(flow_.indices.load(std::memory_order_relaxed),
                             std::memory_order_release);
  if ((old_word & nhi::kRequestInterrupt) != 0 && !frame.lost_interrupt) announce(pass);
  d.word.store(word, std::memory_order_release);
  commit(after);
}

// ---- when a process died, or a ring was stopped

// The journal is of use only if it is about the step that was not committed. A frame taken from the
// transmit ring may lack its completion; setting it again does no harm, because the driver cannot
// have filled the descriptor before the consumer index: the ring holds one less than its size.
void DmaEngine::recover() noexcept {
  const Ring tx = ring_of(*from_.host, tx_regs(), found_tx_);
  Pass pass;
  find_way(pass);
  Ring rx;
  if (pass.to.host != nullptr) rx = ring_of(*pass.to.host, rx_regs(pass.to), found_rx_);
  const uint64_t now = flow_.indices.load(std::memory_order_acquire);
  const bool interrupted =
      flow_.journal_before.load(std::memory_order_acquire) == now && flow_.journal_after != now;
  if (interrupted && rx.descriptors != nullptr) {
    uint32_t expected = flow_.journal_old_word;
    rx.descriptors[Indices::unpack(now).rx].word.compare_exchange_strong(
        expected, flow_.journal_new_word, std::memory_order_acq_rel);
    flow_.indices.store(flow_.journal_after, std::memory_order_release);
  }
  const Indices at = indices();
  if (tx.descriptors != nullptr) complete_tx(tx, at.tx == 0 ? tx.size - 1 : at.tx - 1u);
}

void DmaEngine::lock_for_reset() noexcept { prepare_reset(flow_.lock.lock()); }

void DmaEngine::prepare_reset(sys::LockOutcome outcome) noexcept {
  if (outcome == sys::LockOutcome::kOwnerDied) recover();
  flow_.journal_before.store(0, std::memory_order_relaxed);
  flow_.journal_after = 0;
}

void DmaEngine::reset_tx() noexcept {
  lock_for_reset();
  Indices at = indices();
  at.tx = 0;
  commit(at);
  flow_.stuck.store(0, std::memory_order_relaxed);
  flow_.lock.unlock();
}

void DmaEngine::reset_rx() noexcept {
  lock_for_reset();
  Indices at = indices();
  at.rx = 0;
  at.queue_out = at.queue_in;
  commit(at);
  flow_.overrun = 0;
  flow_.stuck.store(0, std::memory_order_relaxed);
  flow_.lock.unlock();
}

// The receive ring's place is kept in its registers while no flow leads there. False: whoever moves
// frames here stands still in the middle of it.
bool DmaEngine::change_route(const Route& next) noexcept {
  const sys::LockOutcome outcome = flow_.lock.lock_within(kStandstillNs);
  if (outcome == sys::LockOutcome::kBusy) return false;
  prepare_reset(outcome);
  const Route old = route();
  Indices at = indices();
  if (old.state == Route::State::kOpen) {
    RingRegisters& left = hosts_[old.host].nhi->rx[old.hop];
    left.own_half.store(at.rx, std::memory_order_relaxed);
    left.feeder.store(0, std::memory_order_release);
  }
  at.rx = 0;
  const uint64_t lost = static_cast<uint16_t>(at.queue_in - at.queue_out);
  from_.host->nhi->unreachable.fetch_add(lost, std::memory_order_relaxed);
  at.queue_out = at.queue_in;
  if (next.state == Route::State::kOpen) {
    const RingRegisters& found = hosts_[next.host].nhi->rx[next.hop];
    at.rx = static_cast<uint16_t>(found.own_half.load(std::memory_order_relaxed));
  }
  commit(at);
  flow_.route.store(next.pack(), std::memory_order_release);
  flow_.overrun = 0;
  flow_.stuck.store(0, std::memory_order_relaxed);
  flow_.stalled.store(0, std::memory_order_relaxed);
  if (next.state == Route::State::kOpen) {
    const auto host = static_cast<uint32_t>(from_.host - hosts_);
    RingRegisters& found = hosts_[next.host].nhi->rx[next.hop];
    found.feeder.store(flow_number(host, from_.hop) + 1, std::memory_order_release);
  }
  flow_.lock.unlock();
  return true;
}

}  // namespace tbt::rail::emulated
