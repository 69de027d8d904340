BEGIN TRANSACTION;
CREATE TABLE alias (
	level VARCHAR(24) NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	vendor VARCHAR(255), 
	architecture VARCHAR(255), 
	model VARCHAR(255), 
	note TEXT NOT NULL, 
	created DATETIME NOT NULL, 
	CONSTRAINT pk_alias PRIMARY KEY (level, name)
);
CREATE TABLE compiled_shader (
	shader_digest VARCHAR(64) NOT NULL, 
	compiler VARCHAR(255) NOT NULL, 
	chip VARCHAR(255) NOT NULL, 
	vgprs INTEGER NOT NULL, 
	sgprs INTEGER NOT NULL, 
	spilled_vgprs INTEGER NOT NULL, 
	spilled_sgprs INTEGER NOT NULL, 
	scratch_bytes INTEGER NOT NULL, 
	workgroup_bytes INTEGER NOT NULL, 
	waves INTEGER NOT NULL, 
	instructions INTEGER NOT NULL, 
	code_bytes INTEGER NOT NULL, 
	latency_cycles BIGINT NOT NULL, 
	inverse_throughput_cycles BIGINT NOT NULL, 
	hot_instructions INTEGER, 
	hot_multiply_adds INTEGER, 
	CONSTRAINT pk_compiled_shader PRIMARY KEY (shader_digest, compiler, chip)
);
INSERT INTO "compiled_shader" VALUES('3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d','Chromium 156.0.8078.108, Mesa 22.3.6 (RADV)','compile-only:radv-navi21',56,128,0,0,0,2048,18,600,3080,6059,1656,226,128);
INSERT INTO "compiled_shader" VALUES('ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb','Chromium 156.0.8078.108, Mesa 22.3.6 (RADV)','compile-only:radv-navi21',56,128,0,0,0,2048,18,600,3080,6059,1656,226,128);
CREATE TABLE device (
	id INTEGER NOT NULL, 
	"key" VARCHAR(255) NOT NULL, 
	backend VARCHAR(64) NOT NULL, 
	vendor VARCHAR(255) NOT NULL, 
	architecture VARCHAR(255) NOT NULL, 
	model VARCHAR(255) NOT NULL, 
	software BOOLEAN NOT NULL, 
	CONSTRAINT pk_device PRIMARY KEY (id), 
	CONSTRAINT uq_device_key UNIQUE ("key")
);
INSERT INTO "device" VALUES(1,'vulkan:llvmpipe','Vulkan','Mesa','llvmpipe','llvmpipe (LLVM 15.0.6, 256 bits)',1);
CREATE TABLE lease (
	workload_id INTEGER NOT NULL, 
	device_id INTEGER NOT NULL, 
	runtime VARCHAR(24) NOT NULL, 
	session_id INTEGER, 
	until DATETIME NOT NULL, 
	CONSTRAINT pk_lease PRIMARY KEY (workload_id, device_id, runtime), 
	CONSTRAINT fk_lease_device_id_device FOREIGN KEY(device_id) REFERENCES device (id), 
	CONSTRAINT fk_lease_session_id_session FOREIGN KEY(session_id) REFERENCES session (id), 
	CONSTRAINT fk_lease_workload_id_workload FOREIGN KEY(workload_id) REFERENCES workload (id)
);
CREATE TABLE model (
	id INTEGER NOT NULL, 
	capture_key VARCHAR(64) NOT NULL, 
	name VARCHAR(1024) NOT NULL, 
	options JSON NOT NULL, 
	steps_hint INTEGER NOT NULL, 
	CONSTRAINT pk_model PRIMARY KEY (id), 
	CONSTRAINT uq_model_capture_key UNIQUE (capture_key)
);
INSERT INTO "model" VALUES(1,'cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc','demo','{"width": 128, "height": 128, "batch": 1, "guidance": true, "max_binding": 134217728}',20);
CREATE TABLE model_kernel (
	model_id INTEGER NOT NULL, 
	stage VARCHAR(64) NOT NULL, 
	workload_id INTEGER NOT NULL, 
	calls INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	CONSTRAINT pk_model_kernel PRIMARY KEY (model_id, stage, workload_id), 
	CONSTRAINT fk_model_kernel_model_id_model FOREIGN KEY(model_id) REFERENCES model (id), 
	CONSTRAINT fk_model_kernel_workload_id_workload FOREIGN KEY(workload_id) REFERENCES workload (id)
);
INSERT INTO "model_kernel" VALUES(1,'clip',1,1,0);
INSERT INTO "model_kernel" VALUES(1,'clip',3,6,1);
INSERT INTO "model_kernel" VALUES(1,'unet',3,10,2);
INSERT INTO "model_kernel" VALUES(1,'unet',2,4,3);
INSERT INTO "model_kernel" VALUES(1,'unet',4,3,4);
INSERT INTO "model_kernel" VALUES(1,'vae',4,2,5);
INSERT INTO "model_kernel" VALUES(1,'vae',5,1,6);
CREATE TABLE opaque (
	id INTEGER NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	kind VARCHAR(24) NOT NULL, 
	source VARCHAR(1024) NOT NULL, 
	position INTEGER NOT NULL, 
	text BLOB NOT NULL, 
	reason TEXT NOT NULL, 
	added DATETIME NOT NULL, 
	CONSTRAINT pk_opaque PRIMARY KEY (id), 
	CONSTRAINT uq_opaque_digest UNIQUE (digest)
);
CREATE TABLE program_shader (
	program_digest VARCHAR(64) NOT NULL, 
	position INTEGER NOT NULL, 
	shader_digest VARCHAR(64) NOT NULL, 
	CONSTRAINT pk_program_shader PRIMARY KEY (program_digest, position)
);
INSERT INTO "program_shader" VALUES('fb8e20fc2e4c3f248c60c39bd652f3c1347298bb977b8b4d5903b85055620603',0,'ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb');
INSERT INTO "program_shader" VALUES('fb8e20fc2e4c3f248c60c39bd652f3c1347298bb977b8b4d5903b85055620603',1,'3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d');
CREATE TABLE release (
	name VARCHAR(255) NOT NULL, 
	created DATETIME NOT NULL, 
	content VARCHAR(64) NOT NULL, 
	settings JSON NOT NULL, 
	CONSTRAINT pk_release PRIMARY KEY (name)
);
CREATE TABLE replay (
	workload_id INTEGER NOT NULL, 
	schedule_id INTEGER NOT NULL, 
	tvm_version VARCHAR(64) NOT NULL, 
	status VARCHAR(24) NOT NULL, 
	reason TEXT NOT NULL, 
	program_digest VARCHAR(64) NOT NULL, 
	checked DATETIME NOT NULL, 
	CONSTRAINT pk_replay PRIMARY KEY (workload_id, schedule_id, tvm_version), 
	CONSTRAINT fk_replay_schedule_id_schedule FOREIGN KEY(schedule_id) REFERENCES schedule (id), 
	CONSTRAINT fk_replay_workload_id_workload FOREIGN KEY(workload_id) REFERENCES workload (id)
);
CREATE TABLE schedule (
	id INTEGER NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	trace BLOB NOT NULL, 
	CONSTRAINT pk_schedule PRIMARY KEY (id), 
	CONSTRAINT uq_schedule_digest UNIQUE (digest)
);
INSERT INTO "schedule" VALUES(1,'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',X'789C030000000001');
INSERT INTO "schedule" VALUES(2,'f50a4f5622b5f6d2e7867777bb13d3ba99dc6807997c71f62e68f81e811f9b03',X'789C8B8E56724F2D71CAC94FCE56D251888E8D051300500E06C8');
INSERT INTO "schedule" VALUES(3,'32d730abafc73bddd5ce61d8212e26879e9a172fc16f58a1ec622bb522ce3124',X'789C8B8E56724F2D71CAC94FCE56D251888E8D0512D1063A0A86B1B1B1007C0D082D');
INSERT INTO "schedule" VALUES(4,'c6531e975999cc34c0e411b44d24be1456ee2ce8f73a5a22389fbd60c4ea81f8',X'789C8B8E56724F2D71CAC94FCE56D251888E8D0512D1063A0A46B1B1B1007C11082E');
CREATE TABLE schedule_features (
	workload_digest VARCHAR(64) NOT NULL, 
	schedule_digest VARCHAR(64) NOT NULL, 
	version INTEGER NOT NULL, 
	features BLOB NOT NULL, 
	CONSTRAINT pk_schedule_features PRIMARY KEY (schedule_digest, workload_digest, version)
);
INSERT INTO "schedule_features" VALUES('7b5026367bb55e3ed5907b5753fd320f253a96f72af9428a418865ec34f24a6b','f50a4f5622b5f6d2e7867777bb13d3ba99dc6807997c71f62e68f81e811f9b03',1,X'789CAB56CA4E2DCA4BCDD14BCBC92F2856B23232D033D5512AC8CFCC2BD12BC9284A4D4C010A5AE81918989AD502004E470E2D');
CREATE TABLE session (
	id INTEGER NOT NULL, 
	uid VARCHAR(32) NOT NULL, 
	device_id INTEGER NOT NULL, 
	runtime VARCHAR(24) NOT NULL, 
	driver VARCHAR(1024) NOT NULL, 
	adapter JSON NOT NULL, 
	toolchain JSON NOT NULL, 
	model VARCHAR(1024) NOT NULL, 
	capture_key VARCHAR(64) NOT NULL, 
	tier VARCHAR(64) NOT NULL, 
	budget JSON NOT NULL, 
	seed BIGINT NOT NULL, 
	reason TEXT NOT NULL, 
	host VARCHAR(255) NOT NULL, 
	pid INTEGER NOT NULL, 
	outcome VARCHAR(24) NOT NULL, 
	started DATETIME NOT NULL, 
	ended DATETIME, 
	note TEXT NOT NULL, target TEXT DEFAULT '' NOT NULL, cache VARCHAR(24) DEFAULT 'warm' NOT NULL, calibration JSON DEFAULT '{}' NOT NULL, 
	CONSTRAINT pk_session PRIMARY KEY (id), 
	CONSTRAINT fk_session_device_id_device FOREIGN KEY(device_id) REFERENCES device (id), 
	CONSTRAINT uq_session_uid UNIQUE (uid)
);
INSERT INTO "session" VALUES(1,'6c47d4f45cd34b57af97338879de0b75',1,'wgpu','Mesa 22.3.6','{"limits": {"maxComputeInvocationsPerWorkgroup": 256}, "features": ["timestamp-query"]}','{"wgtune": "0.1.0", "apache-tvm": "0.27.0.post1", "wgpu": "0.32.0"}','demo','cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc','default','{"trials": 64}',7,'a test','bench',4242,'completed','2026-11-21 02:13:10.896110','2026-11-21 02:13:10.902337','','','warm','{"flops_per_s": 150000000000.0, "bytes_per_s": 12500000000.0, "launch_s": 2e-05}');
INSERT INTO "session" VALUES(2,'09b76fd2c4134616b4a5206fdbb6c7b1',1,'wgpu','Mesa 22.3.6','{"limits": {"maxComputeInvocationsPerWorkgroup": 256}, "features": ["timestamp-query"]}','{"wgtune": "0.1.0", "apache-tvm": "0.27.0.post1", "wgpu": "0.32.0"}','demo','cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc','default','{"trials": 64}',7,'a test','bench',4243,'killed','2026-11-21 02:13:10.903371','2026-11-21 02:13:10.905615','','','warm','{}');
CREATE TABLE "trial" (
	id INTEGER NOT NULL, 
	session_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	workload_id INTEGER NOT NULL, 
	device_id INTEGER NOT NULL, 
	schedule_id INTEGER NOT NULL, 
	runtime VARCHAR(24) NOT NULL, 
	kind VARCHAR(24) NOT NULL, 
	state VARCHAR(24) NOT NULL, 
	latency_s DOUBLE, 
	program_digest VARCHAR(64) NOT NULL, 
	needs JSON NOT NULL, 
	launches INTEGER NOT NULL, 
	seed BIGINT NOT NULL, 
	samples_s JSON NOT NULL, 
	timer VARCHAR(24) NOT NULL, 
	compile_s DOUBLE NOT NULL, 
	run_s DOUBLE NOT NULL, 
	verify_s DOUBLE NOT NULL, 
	max_error DOUBLE, 
	rtol DOUBLE NOT NULL, 
	atol DOUBLE NOT NULL, 
	error TEXT NOT NULL, 
	started DATETIME NOT NULL, 
	ended DATETIME, 
	warmup_s JSON DEFAULT '[]' NOT NULL, 
	repeat BOOLEAN DEFAULT 0 NOT NULL, 
	CONSTRAINT pk_trial PRIMARY KEY (id), 
	CONSTRAINT ck_trial_latency_iff_timed CHECK ((state IN ('ok', 'unverified')) = (latency_s IS NOT NULL)), 
	CONSTRAINT ck_trial_ended_iff_final CHECK ((state IN ('pending', 'running')) = (ended IS NULL)), 
	CONSTRAINT fk_trial_device_id_device FOREIGN KEY(device_id) REFERENCES device (id), 
	CONSTRAINT fk_trial_schedule_id_schedule FOREIGN KEY(schedule_id) REFERENCES schedule (id), 
	CONSTRAINT fk_trial_session_id_session FOREIGN KEY(session_id) REFERENCES session (id), 
	CONSTRAINT fk_trial_workload_id_workload FOREIGN KEY(workload_id) REFERENCES workload (id), 
	CONSTRAINT uq_trial_session_id_number UNIQUE (session_id, number)
);
INSERT INTO "trial" VALUES(1,1,1,3,1,1,'wgpu','baseline','ok',0.004,'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855','{"threads": 64, "workgroup_bytes": 4096, "features": []}',1,7,'[0.004, 0.0041, 0.0039]','timestamp',0.5,0.1,0.0,1.0e-06,0.001,0.0001,'','2026-11-21 02:13:10.898091','2026-11-21 02:13:10.899265','[]',0);
INSERT INTO "trial" VALUES(2,1,2,3,1,2,'wgpu','search','ok',0.001,'f50a4f5622b5f6d2e7867777bb13d3ba99dc6807997c71f62e68f81e811f9b03','{"threads": 64, "workgroup_bytes": 4096, "features": []}',1,7,'[0.001, 0.0011, 0.0009]','timestamp',0.5,0.1,0.0,1.0e-06,0.001,0.0001,'','2026-11-21 02:13:10.900389','2026-11-21 02:13:10.900787','[]',0);
INSERT INTO "trial" VALUES(3,1,3,4,1,1,'wgpu','baseline','ok',0.008,'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855','{"threads": 64, "workgroup_bytes": 4096, "features": []}',1,7,'[0.008]','timestamp',0.5,0.1,0.0,1.0e-06,0.001,0.0001,'','2026-11-21 02:13:10.901330','2026-11-21 02:13:10.901689','[]',0);
INSERT INTO "trial" VALUES(4,2,1,2,1,3,'wgpu','search','wrong_result',NULL,'32d730abafc73bddd5ce61d8212e26879e9a172fc16f58a1ec622bb522ce3124','{"threads": 64, "workgroup_bytes": 4096, "features": []}',1,7,'[]','',0.0,0.0,0.0,NULL,0.001,0.0001,'3 of 4096 elements are off','2026-11-21 02:13:10.904119','2026-11-21 02:13:10.904584','[]',0);
INSERT INTO "trial" VALUES(5,2,2,2,1,4,'wgpu','search','abandoned',NULL,'c6531e975999cc34c0e411b44d24be1456ee2ce8f73a5a22389fbd60c4ea81f8','{"threads": 64, "workgroup_bytes": 4096, "features": []}',1,7,'[]','',0.0,0.0,0.0,NULL,0.0,0.0,'the session ended (killed) while it was running','2026-11-21 02:13:10.905153','2026-11-21 02:13:10.905615','[]',0);
CREATE TABLE wgtune_revision (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT wgtune_revision_pkc PRIMARY KEY (version_num)
);
INSERT INTO "wgtune_revision" VALUES('0005');
CREATE TABLE workload (
	id INTEGER NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	name TEXT NOT NULL, 
	text TEXT NOT NULL, 
	params JSON NOT NULL, 
	outputs JSON NOT NULL, 
	flops DOUBLE NOT NULL, 
	nbytes BIGINT NOT NULL, 
	CONSTRAINT pk_workload PRIMARY KEY (id), 
	CONSTRAINT uq_workload_digest UNIQUE (digest)
);
INSERT INTO "workload" VALUES(1,'83cc070693c929e37dc732df315b1e41c50f081ac2b31bcd22d1a8d2b16a2c15','take_add_1a2b3c4d','kernel take_add_1a2b3c4d 0.0 307200','[["a", [64, 64], "float32"], ["out", [64, 64], "float32"]]','[1]',0.0,307200);
INSERT INTO "workload" VALUES(2,'47ed0a218643f0bec97394810ff9c3a015e7d7a5ecdcb019deab30ecdec709ba','softmax_5e6f7a8b','kernel softmax_5e6f7a8b 5000000.0 2097152','[["a", [64, 64], "float32"], ["out", [64, 64], "float32"]]','[1]',5000000.0,2097152);
INSERT INTO "workload" VALUES(3,'7b5026367bb55e3ed5907b5753fd320f253a96f72af9428a418865ec34f24a6b','matmul_bias_add_9c0d1e2f','kernel matmul_bias_add_9c0d1e2f 4000000000.0 12582912','[["a", [64, 64], "float32"], ["out", [64, 64], "float32"]]','[1]',4000000000.0,12582912);
INSERT INTO "workload" VALUES(4,'fd5ed17c4444e2f143d930c9fa6cf205bc225a7a72f2de3efcb1d070cb63aa87','conv2d_add_silu_33445566','kernel conv2d_add_silu_33445566 9000000000.0 31457280','[["a", [64, 64], "float32"], ["out", [64, 64], "float32"]]','[1]',9000000000.0,31457280);
INSERT INTO "workload" VALUES(5,'7b0c7628fd8786c2e04dde6435940719c8f21dc048cfb6dcd1aa06a928d854ff','clip_multiply_77889900','kernel clip_multiply_77889900 1000000.0 3145728','[["a", [64, 64], "float32"], ["out", [64, 64], "float32"]]','[1]',1000000.0,3145728);
CREATE TABLE workload_form (
	workload_id INTEGER NOT NULL, 
	tvm_version VARCHAR(64) NOT NULL, 
	module BLOB NOT NULL, 
	structural_hash VARCHAR(64) NOT NULL, 
	CONSTRAINT pk_workload_form PRIMARY KEY (workload_id, tvm_version), 
	CONSTRAINT fk_workload_form_workload_id_workload FOREIGN KEY(workload_id) REFERENCES workload (id)
);
INSERT INTO "workload_form" VALUES(1,'0.27.0.post1',X'789CABAE0500017500F9','123');
INSERT INTO "workload_form" VALUES(2,'0.27.0.post1',X'789CABAE0500017500F9','123');
INSERT INTO "workload_form" VALUES(3,'0.27.0.post1',X'789CABAE0500017500F9','123');
INSERT INTO "workload_form" VALUES(4,'0.27.0.post1',X'789CABAE0500017500F9','123');
INSERT INTO "workload_form" VALUES(5,'0.27.0.post1',X'789CABAE0500017500F9','123');
CREATE INDEX ix_session_capture_key ON session (capture_key);
CREATE INDEX ix_session_device_id ON session (device_id);
CREATE INDEX ix_trial_schedule_id_workload_id_device_id_runtime_state ON trial (schedule_id, workload_id, device_id, runtime, state) WHERE repeat = 1;
CREATE INDEX ix_trial_session_id_state ON trial (session_id, state);
CREATE INDEX ix_trial_workload_id_device_id_runtime_state_latency_s_kind ON trial (workload_id, device_id, runtime, state, latency_s, kind);
COMMIT;
