// Text for people: traces and `tbt dump`. Not on any hot path.
#include "wire/dissect.h"

#include <cinttypes>
#include <cstdarg>
#include <cstdio>

#include "base/bytes.h"
#include "wire/control.h"
#include "wire/tb/credit_frame.h"

namespace tbt::wire {
namespace {

__attribute__((format(printf, 2, 3))) void add(std::string& text, const char* format, ...) {
  char buffer[160];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(buffer, sizeof buffer, format, arguments);
  va_end(arguments);
  text += buffer;
}

void add_aeth(std::string& text, const PacketHeaders& h) {
  static constexpr const char* kNaks[] = {"psn sequence error", "invalid request",
                                          "remote access error", "remote operational error"};
  const uint8_t value = aeth_value(h.syndrome);
  switch (aeth_kind(h.syndrome)) {
    case AethKind::kAck:
      if (value == kAethNoCredits) {
        text += " ack";
      } else {
        add(text, " ack credits %u", value);
      }
      break;
    case AethKind::kRnrNak:
      add(text, " rnr nak timer %u", value);
      break;
    case AethKind::kNak:
      add(text, " nak %s", value < 4 ? kNaks[value] : "unknown");
      break;
    case AethKind::kReserved:
      add(text, " syndrome 0x%02x", h.syndrome);
      break;
  }
  add(text, " msn %u", h.msn);
}

void add_ext(std::string& text, const PacketHeaders& h) {
  if (h.is(kOpDeth)) add(text, " src-qp 0x%x qkey 0x%x", h.src_qp, h.qkey);
  if (h.is(kOpXrceth)) add(text, " srq %u", h.srq_number);
  if (h.is(kOpFeth)) {
    add(text, " %s%s of %s", (h.flush & kFlushGlobal) != 0 ? "global" : "",
        (h.flush & kFlushPersistent) != 0 ? "persistent" : "",
        (h.flush & 0x30) == 0 ? "range" : "region");
  }
  if (h.is(kOpReth)) add(text, " va 0x%" PRIx64 " rkey 0x%x length %u", h.va, h.rkey, h.dma_length);
  if (h.is(kOpAtomicEth)) {
    add(text, " va 0x%" PRIx64 " rkey 0x%x swap/add %" PRIu64, h.va, h.rkey, h.swap_add);
    if (h.opcode == static_cast<uint8_t>(Opcode::kRcCmpSwap) ||
        h.opcode == static_cast<uint8_t>(xrc(Opcode::kRcCmpSwap)))
      add(text, " compare %" PRIu64, h.compare);
  }
  if (h.is(kOpAeth)) add_aeth(text, h);
  if (h.is(kOpAtomicAckEth)) add(text, " result %" PRIu64, h.atomic_result);
  if (h.is(kOpImm)) add(text, " imm 0x%x", base::to_big(h.imm_be));
  if (h.is(kOpIeth)) add(text, " rkey 0x%x", h.rkey);
  if (h.is(kOpControl)) {
    add(text, " src-qp 0x%x words %u %u %u", h.src_qp, h.control[0], h.control[1], h.control[2]);
  }
}

struct ControlText {
  std::string& text;

  void operator()(const Hello& m) const {
    add(text,
        "hello%s version %u host %s cable %u incarnation 0x%" PRIx64 " peer 0x%" PRIx64 " lid",
        m.reply ? " reply" : "", m.version, m.host_name.c_str(), m.cable, m.incarnation,
        m.peer_incarnation);
    for (const PortIdentity& port : m.ports) add(text, " %u", port.lid);
  }
  void operator()(const Refuse& m) const {
    add(text, "refuse version %u reason %u", m.version, m.reason);
  }
  void operator()(const Heartbeat& m) const {
    add(text, "heartbeat%s %" PRIu64 " incarnation 0x%" PRIx64, m.reply ? " reply" : "", m.sequence,
        m.incarnation);
  }
  void operator()(const Bye& m) const { add(text, "bye incarnation 0x%" PRIx64, m.incarnation); }
  void operator()(const ProcessGone& m) const {
    add(text, "process gone slot %u lid %u local qpns 0x%x+%u", m.slot, m.lid, m.first, m.count);
  }
};

std::string describe_control(std::span<const std::byte> bytes) {
  ControlMessage message;
  const ControlError error = decode_control(bytes, message);
  std::string text;
  if (error == ControlError::kNone) {
    std::visit(ControlText{text}, message);
  } else {
    add(text, "control message: %s (%zu B)", control_error_name(error), bytes.size());
  }
  return text;
}

std::string describe_credit(std::span<const std::byte> bytes) {
  tb::CreditFrame frame;
  std::string text;
  if (!tb::decode_credit_frame(bytes, frame)) {
    add(text, "bad credit frame (%zu B)", bytes.size());
  } else if (frame.kind == tb::CreditKind::kTest) {
    add(text, "flow test session 0x%x frame %u of %u", frame.session, frame.sent, frame.limit);
  } else {
    add(text, "credit session 0x%x sent %u limit %u%s", frame.session, frame.sent, frame.limit,
        frame.answer ? " answer wanted" : "");
  }
  return text;
}

}  // namespace

std::string describe(const ParsedPacket& packet) {
  const PacketHeaders& h = packet.headers;
  const char* name = opcode_info(h.opcode).name;
  std::string text = name != nullptr ? name : "unknown opcode";
  add(text, " qp 0x%x psn %u", h.dest_qp, h.psn);
  if (h.ack_req) text += " ack-req";
  if (h.solicited) text += " solicited";
  add_ext(text, h);
  add(text, " lid %u->%u", h.slid, h.dlid);
  if (h.has_grh) text += " grh";
  if (h.is(kOpPayload)) add(text, " %u B", packet.payload_bytes);
  return text;
}

std::string describe(const RawFrame& head, const RawFrame& payload) {
  if (head.sof == tb::kPdfCredit) return describe_credit(head.bytes);
  FrameView view;
  const FrameError frame_error = check_frame(head, payload, 0, true, view);
  if (frame_error != FrameError::kNone) {
    std::string text = "bad frame: ";
    add(text, "%s (sof %u eof %u, %zu B)", frame_error_name(frame_error), head.sof, head.eof,
        head.bytes.size() + payload.bytes.size());
    return text;
  }
  if (head.sof == kSofControl) return describe_control(view.bytes);
  ParsedPacket packet;
  const ParseError error =
      parse_packet(view.bytes, view.bytes.size() + view.payload.size(), packet);
  if (error == ParseError::kNone) return describe(packet);
  std::string text = "bad packet: ";
  add(text, "%s (%zu B)", parse_error_name(error), view.bytes.size() + view.payload.size());
  return text;
}

}  // namespace tbt::wire
