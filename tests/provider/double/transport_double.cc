#include "transport_double.h"

#include <algorithm>
#include <cstdlib>
#include <list>

namespace tbt {
namespace transport_double {
namespace {

Status destroyed() {
  return control().destroy_error != 0 ? Status(control().destroy_error) : Status();
}

struct DoubleMr final : Mr {
  uint32_t key = 0;
  [[nodiscard]] uint32_t lkey() const noexcept override { return key; }
  [[nodiscard]] uint32_t rkey() const noexcept override { return key + 1; }
  Status destroy() override { return destroyed(); }
  Status rereg(Pd&, void* addr, size_t length, uint64_t iova, uint32_t access) override {
    control().registrations.push_back(
        {.addr = addr, .length = length, .iova = iova, .access = access});
    return {};
  }
};

struct DoubleMw final : Mw {
  MwType kind{};
  uint32_t key = 0;
  [[nodiscard]] MwType type() const noexcept override { return kind; }
  [[nodiscard]] uint32_t rkey() const noexcept override { return key; }
  Status destroy() override { return destroyed(); }
};

struct DoubleAh final : Ah {
  Status destroy() override { return destroyed(); }
};

struct DoubleCq final : Cq {
  CqOptions options;
  std::deque<Wc> queue;
  bool armed = false;
  int poll(std::span<Wc> out) noexcept override {
    size_t n = 0;
    for (; n < out.size() && !queue.empty(); ++n, queue.pop_front()) out[n] = queue.front();
    return static_cast<int>(n);
  }
  void arm(bool solicited_only) noexcept override {
    armed = true;
    control().arms.push_back(solicited_only);
  }
  [[nodiscard]] uint32_t entries() const noexcept override { return options.entries; }
  Status resize(uint32_t entries) override {
    if (entries < queue.size()) return Status(EINVAL);
    options.entries = entries;
    return {};
  }
  Status moderate(uint32_t count, uint32_t period_us) override {
    control().moderations.emplace_back(count, period_us);
    return {};
  }
  Status destroy() override { return destroyed(); }
};

struct DoubleSrq final : Srq {
  SrqOptions options;
  Status post_recv(const RecvWr& wr) noexcept override {
    control().recvs.push_back(wr);
    return {};
  }
  Status modify_limit(uint32_t limit) override {
    options.limit = limit;
    return {};
  }
  Status resize(uint32_t) override { return Status(ENOSYS); }
  [[nodiscard]] SrqOptions query() const override { return options; }
  [[nodiscard]] uint32_t number() const noexcept override { return 77; }
  Status destroy() override { return destroyed(); }
};

PostedSend copy(const SendWr& wr) {
  PostedSend posted{.wr = wr, .sges = {}, .inline_bytes = {}};
  if (wr.num_sge > 0) posted.sges.assign(wr.sg_list, wr.sg_list + wr.num_sge);
  if ((wr.flags & kSendInline) == 0) return posted;
  for (const Sge& sge : posted.sges) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(sge.addr);
    posted.inline_bytes.insert(posted.inline_bytes.end(), bytes, bytes + sge.length);
  }
  return posted;
}

struct DoubleQp final : Qp {
  QpOptions options;
  uint32_t qpn = 0;
  [[nodiscard]] uint32_t number() const noexcept override { return qpn; }
  [[nodiscard]] QpState state() const noexcept override { return control().query_answer.qp_state; }
  Status modify(const QpAttr& attr, uint32_t mask) override {
    control().modifies.push_back(attr);
    control().modify_masks.push_back(mask);
    return {};
  }
  void query(QpAttr& attr) const override {
    attr = control().query_answer;
    attr.cap = options.cap;
  }
  Status post_send(std::span<const SendWr> wrs, size_t& posted) noexcept override {
    control().send_batches.push_back(wrs.size());
    for (posted = 0; posted < wrs.size(); ++posted) {
      if (control().sends.size() == control().refuse_send_at) return Status(control().refuse_code);
      control().sends.push_back(copy(wrs[posted]));
    }
    return {};
  }
  Status post_send_whole(std::span<const SendWr> wrs) noexcept override {
    size_t posted = 0;
    return post_send(wrs, posted);
  }
  Status post_recv(const RecvWr& wr) noexcept override {
    control().recvs.push_back(wr);
    return {};
  }
  Status destroy() override { return destroyed(); }
};

// Everything made lives until reset(): the objects are compared by address after their death.
struct World {
  Control control;
  std::list<DoubleMr> mrs;
  std::list<DoubleMw> mws;
  std::list<DoubleAh> ahs;
  std::list<DoubleCq> cqs;
  std::list<DoubleSrq> srqs;
  std::list<DoubleQp> qps;
};

World& world() {
  static World instance;
  return instance;
}

struct DoublePd final : Pd {
  Result<Mr*> reg_mr(void* addr, size_t length, uint64_t iova, uint32_t access) override {
    control().registrations.push_back({addr, length, iova, access});
    DoubleMr& mr = world().mrs.emplace_back();
    mr.key = static_cast<uint32_t>(world().mrs.size()) << 8;
    return static_cast<Mr*>(&mr);
  }
  Result<Mw*> alloc_mw(MwType type) override {
    DoubleMw& mw = world().mws.emplace_back();
    mw.kind = type;
    mw.key = 0x77000000 | static_cast<uint32_t>(world().mws.size()) << 8 | 0xff;
    return static_cast<Mw*>(&mw);
  }
  Result<Qp*> create_qp(const QpOptions& options) override {
    control().qps.push_back(options);
    DoubleQp& qp = world().qps.emplace_back();
    qp.options = options;
    qp.options.cap.max_inline_data =
        std::max(options.cap.max_inline_data, 64u);  // more than asked for
    qp.qpn = 0x040000 + static_cast<uint32_t>(world().qps.size());
    return static_cast<Qp*>(&qp);
  }
  Result<Srq*> create_srq(const SrqOptions& options) override {
    DoubleSrq& srq = world().srqs.emplace_back();
    srq.options = options;
    srq.options.max_wr = options.max_wr + 1;  // more than asked for
    return static_cast<Srq*>(&srq);
  }
  Result<Ah*> create_ah(const AddressVector& av) override {
    control().address_vectors.push_back(av);
    return static_cast<Ah*>(&world().ahs.emplace_back());
  }
  Status destroy() override { return destroyed(); }
};

struct DoubleContext final : Context {
  DoublePd pd;
  [[nodiscard]] DeviceAttr query_device() const override {
    return {.node_guid = 0x0102030405060708,
            .sys_image_guid = 0x1112131415161718,
            .vendor_id = 0x8086,
            .vendor_part_id = 0x5781,
            .fw_version = "1.2.3"};
  }
  [[nodiscard]] PortAttr query_port() const override {
    return {.active = control().port_active,
            .lid = 0x41,
            .active_width = 4,
            .active_speed = 8,
            .speed_100mbps = 800,
            .bad_pkey_cntr = 1,
            .qkey_viol_cntr = 2};
  }
  [[nodiscard]] Gid query_gid(uint32_t index) const override {
    if (index == 0) return {{0xfe, 0x80, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8}};
    if (index == 1) return {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 169, 254, 7, 1}};
    return {};
  }
  Result<Pd*> create_pd() override { return static_cast<Pd*>(&pd); }
  Result<Cq*> create_cq(const CqOptions& options) override {
    control().cqs.push_back(options);
    DoubleCq& cq = world().cqs.emplace_back();
    cq.options = options;
    return static_cast<Cq*>(&cq);
  }
  Result<Xrcd*> create_xrcd(Xrcd*) override { return Status(EOPNOTSUPP); }
  [[nodiscard]] uint64_t now_ns() const noexcept override { return 5'000'000'123; }
  void close() override {}
};

}  // namespace

Control& control() { return world().control; }

void reset() { world() = World{}; }

void complete(void* user, const Wc& wc) {
  for (DoubleCq& cq : world().cqs) {
    if (cq.options.user != user) continue;
    cq.queue.push_back(wc);
    if (cq.armed && cq.options.sink != nullptr) cq.options.sink->on_completion_event(cq);
    cq.armed = false;
  }
}

}  // namespace transport_double

// Programs that cannot call control() ask for devices by the environment.
Result<std::vector<DeviceInfo>> Context::list_devices() {
  auto& devices = transport_double::control().devices;
  if (std::getenv("TBT_DOUBLE_DEVICES") != nullptr && devices.empty()) {
    devices = {{.name = "tbt0", .guid = 0x0102030405060708},
               {.name = "tbt0c0", .guid = 0x0102030405060709}};
  }
  return devices;
}

Result<Context*> Context::open(const std::string&, AsyncSink* sink) {
  if (transport_double::control().open_error != 0)
    return Status(transport_double::control().open_error);
  transport_double::control().async = sink;
  static transport_double::DoubleContext context;
  return static_cast<Context*>(&context);
}

}  // namespace tbt
