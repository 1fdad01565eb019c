// The verbs objects behind include/tbt/device.h: each takes the process's lock and calls the
// endpoint.
#pragma once

#include "device/context.h"

namespace tbt::device {

class PdImpl final : public Pd, public Object {
 public:
  explicit PdImpl(ContextImpl& context) : Object(context, nullptr) {}

  Result<Mr*> reg_mr(void* addr, size_t length, uint64_t iova, uint32_t access) override;
  Result<Mw*> alloc_mw(MwType type) override;
  Result<Qp*> create_qp(const QpOptions& options) override;
  Result<Srq*> create_srq(const SrqOptions& options) override;
  Result<Ah*> create_ah(const AddressVector& av) override;
  Status destroy() override;

  verbs::ProtectionDomain domain;

 private:
  Result<Qp*> make_qp(const QpOptions& options);
};

class MrImpl final : public Mr, public Object {
 public:
  MrImpl(ContextImpl& context, verbs::ProtectionDomain& pd) : Object(context, nullptr), pd_(&pd) {}
  void set_key(uint32_t key) noexcept { key_ = key; }
  void set_mapping(const DirectRegions::Mapping& mapping) noexcept { mapping_ = mapping; }
  [[nodiscard]] const DirectRegions::Mapping& mapping() const noexcept { return mapping_; }

  uint32_t lkey() const noexcept override { return key_; }
  uint32_t rkey() const noexcept override { return key_; }
  Status destroy() override;
  Status rereg(Pd& pd, void* addr, size_t length, uint64_t iova, uint32_t access) override;

 private:
  // EBUSY if the controller may still read the region.
  Status leave_controller();

  verbs::ProtectionDomain* pd_;
  uint32_t key_ = 0;
  DirectRegions::Mapping mapping_;
};

class MwImpl final : public Mw, public Object {
 public:
  MwImpl(ContextImpl& context, verbs::ProtectionDomain& pd, MwType type)
      : Object(context, nullptr), pd_(&pd), type_(type) {}
  void set_key(uint32_t key) noexcept { key_ = key; }

  MwType type() const noexcept override { return type_; }
  uint32_t rkey() const noexcept override;
  Status destroy() override;
  void forget() noexcept;  // the table's entry only; the lock is held

 private:
  verbs::MrTable& table() const noexcept {
    return const_cast<MwImpl*>(this)->context().process().endpoint().regions();
  }

  verbs::ProtectionDomain* pd_;
  MwType type_;
  uint32_t key_ = 0;  // its upper 24 bits
};

class AhImpl final : public Ah, public Object {
 public:
  AhImpl(ContextImpl& context, verbs::ProtectionDomain& pd, const AddressVector& vector)
      : Object(context, nullptr), vector_(vector) {
    handle.pd = &pd;
  }
  Status destroy() override;
  // Finds the way anew; the lock is held.
  bool resolve() { return context().process().resolve(context().port(), vector_, handle); }

  engine::AddressHandle handle;

 private:
  AddressVector vector_;
};

class CqImpl final : public Cq, public Object {
 public:
  CqImpl(ContextImpl& context, const CqOptions& options)
      : Object(context, options.user),
        sink_(options.sink),
        queue(options.entries, static_cast<Object*>(this)) {}

  int poll(std::span<Wc> out) noexcept override;
  void arm(bool solicited_only) noexcept override;
  uint32_t entries() const noexcept override { return queue.entries(); }
  Status resize(uint32_t entries) override;
  Status moderate(uint32_t count, uint32_t period_us) override;
  Status destroy() override;
  void notify_completion() noexcept override;

 private:
  CompletionSink* sink_;

 public:
  verbs::CompletionQueue queue;
};

class XrcdImpl final : public Xrcd, public Object {
 public:
  XrcdImpl(ContextImpl& context, std::shared_ptr<verbs::XrcDomain> shared)
      : Object(context, nullptr), domain(std::move(shared)) {}

  Result<Qp*> create_qp(const QpOptions& options) override;
  Status destroy() override;

  std::shared_ptr<verbs::XrcDomain> domain;  // of all handles
  uint32_t users = 0;                        // queue pairs and SRQs made by this one
};

class SrqImpl final : public Srq, public Object {
 public:
  SrqImpl(ContextImpl& context, verbs::ProtectionDomain& pd, const SrqOptions& options)
      : Object(context, options.user),
        queue(&pd, options.max_wr, options.max_sge, static_cast<Object*>(this)) {}

  Status post_recv(const RecvWr& wr) noexcept override;
  Status modify_limit(uint32_t limit) override;
  Status resize(uint32_t max_wr) override;
  SrqOptions query() const override;
  uint32_t number() const noexcept override { return queue.number; }
  Status destroy() override;
  // Takes it out of its XRC domain. False while a message is arriving; the lock is held.
  bool leave_domain() noexcept;

  verbs::SharedReceiveQueue queue;
  XrcdImpl* xrcd = nullptr;
};

class QpImpl final : public Qp, public Object {
 public:
  QpImpl(ContextImpl& context, void* user) : Object(context, user) {}

  uint32_t number() const noexcept override { return pair->number; }
  QpState state() const noexcept override;
  Status modify(const QpAttr& attr, uint32_t mask) override;
  void query(QpAttr& attr) const override;
  Status post_send(std::span<const SendWr> wrs, size_t& posted) noexcept override;
  Status post_send_whole(std::span<const SendWr> wrs) noexcept override;
  Status post_recv(const RecvWr& wr) noexcept override;
  Status destroy() override;

  engine::QueuePair* pair = nullptr;
  XrcdImpl* xrcd = nullptr;  // of a TGT

 private:
  Process& process() const noexcept { return const_cast<QpImpl*>(this)->context().process(); }
};

}  // namespace tbt::device
